/** The request as a curl command and as Python code. */

import type { RunConfig } from "../../api";
import { BASE, key } from "../../session";
import type { Json, JsonObject } from "./schema";

export function asCurl(body: RunConfig): string {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const header = key() ? ` \\\n  -H "Authorization: Bearer $DESCENT_API_KEY"` : "";
  return `curl ${BASE}/api/v1/runs${header} \\\n  --json '${json}'`;
}

export function asPython(body: RunConfig): string {
  const { dataset, target, ...rest } = body as unknown as JsonObject;
  const options = Object.entries(rest).map(([name, value]) => `    ${name}=${literal(value)},\n`);
  const secret = key() ? ', os.environ["DESCENT_API_KEY"]' : "";
  return `${key() ? "import os\n\n" : ""}from descent import Client

client = Client("${BASE}"${secret})
run = client.train(
    ${literal(dataset)},
    ${literal(target)},
${options.join("")})
print(run.wait().evaluation)`;
}

function literal(value: Json | undefined): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  const parts = Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${literal(part)}`);
  return `{${parts.join(", ")}}`;
}
