/** The test of learning rates: an ordinary run, whose evaluation has the loss at each of them. */

import { call, type Run, type RunConfig } from "../../api";
import { client } from "../../generated/client.gen";

export function submitLrRange(body: RunConfig, headers: Record<string, string>): Promise<Run> {
  return call<Run>(
    client.post<{ 202: Run }>({
      url: "/api/v1/runs/lr_range",
      body,
      security: [{ scheme: "bearer", type: "http" }],
      headers: { "Content-Type": "application/json", ...headers },
    }),
  );
}
