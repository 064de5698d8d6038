/** Uploads a file. Uses XMLHttpRequest, because `fetch` reports no upload progress. */

import { type Dataset, isProblem, refusal, Refusal } from "../../api";
import { BASE, headers } from "../../session";

const TYPES: Record<string, string> = {
  csv: "text/csv",
  txt: "text/csv",
  tsv: "text/tab-separated-values",
  tab: "text/tab-separated-values",
  ndjson: "application/x-ndjson",
  jsonl: "application/x-ndjson",
  json: "application/json",
  parquet: "application/vnd.apache.parquet",
  arrow: "application/vnd.apache.arrow.file",
  feather: "application/vnd.apache.arrow.file",
};

/** File types that the file dialog offers. */
export const ACCEPTED = [...Object.keys(TYPES).map((ending) => `.${ending}`), ".gz"].join(",");

export interface UploadOptions {
  onProgress: (share: number) => void;
  signal: AbortSignal;
}

/** Resolves to the dataset, which the service may still be parsing. */
export function upload(file: File, { onProgress, signal }: UploadOptions): Promise<Dataset> {
  const { name, type, isCompressed } = described(file.name);
  const query = new URLSearchParams({ name, wait: "5" }).toString();
  const request = new XMLHttpRequest();
  request.open("POST", `${BASE}/api/v1/datasets?${query}`);
  request.responseType = "json";
  const sent = { ...headers(), "Content-Type": type, "Idempotency-Key": idempotencyKey() };
  for (const [header, value] of Object.entries(sent)) request.setRequestHeader(header, value);
  if (isCompressed) request.setRequestHeader("Content-Encoding", "gzip");
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) onProgress(event.loaded / event.total);
  };
  return new Promise((resolve, reject) => {
    request.onload = () => answered(request, resolve, reject);
    request.onerror = () => reject(refusal(null));
    request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function answered(
  request: XMLHttpRequest,
  resolve: (dataset: Dataset) => void,
  reject: (error: Refusal) => void,
): void {
  const body: unknown = request.response;
  if (request.status >= 200 && request.status < 300) resolve(body as Dataset);
  else if (isProblem(body) && request.status !== 401) reject(new Refusal(body));
  else reject(refusal(body, new Response(null, { status: request.status || 500 })));
}

/** Splits `scores.csv.gz` into its name, its media type, and whether it is compressed. */
export function described(filename: string): { name: string; type: string; isCompressed: boolean } {
  const isCompressed = /\.gz$/i.test(filename);
  const plain = filename.replace(/\.gz$/i, "");
  const ending = /\.([a-z]+)$/i.exec(plain)?.[1]?.toLowerCase() ?? "";
  const type = TYPES[ending] ?? "text/csv";
  const name = ending in TYPES ? plain.slice(0, -ending.length - 1) : plain;
  return { name: name || "dataset", type, isCompressed };
}

/** Returns a random Idempotency-Key. Not by crypto.randomUUID, which needs TLS. */
export function idempotencyKey(): string {
  const parts = crypto.getRandomValues(new Uint32Array(4));
  return [...parts].map((part) => part.toString(36)).join("-");
}
