/** Uploads a file. Uses XMLHttpRequest, because `fetch` reports no upload progress. */

import { type Dataset, type FileOverride, isProblem, refusal, Refusal } from "../../api";
import { BASE, headers } from "../../session";
import { type FieldName, OF_TEXT, OF_WORKBOOK } from "./reading";

const WORKBOOK = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
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
  xlsx: WORKBOOK,
  xlsm: WORKBOOK,
  zip: "application/zip",
};

/** File types that the file dialog offers. */
export const ACCEPTED = [...Object.keys(TYPES).map((ending) => `.${ending}`), ".gz"].join(",");

export interface UploadOptions {
  /** how to read the file, if the service shall not decide it */
  reading?: FileOverride;
  onProgress: (share: number) => void;
  signal: AbortSignal;
}

/** Resolves to the dataset, which the service may still be parsing. */
export function upload(file: File, { reading = {}, onProgress, signal }: UploadOptions): Promise<Dataset> {
  const { name, type, isCompressed } = described(file);
  const query = new URLSearchParams([["name", name], ["wait", "5"], ...chosen(reading)]).toString();
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

/** Returns the query fields of the choices that are made. */
export function chosen(reading: FileOverride): [string, string][] {
  const made = Object.entries(reading).filter(([, value]) => value !== null && value !== undefined);
  return made.flatMap(([name, value]) =>
    Array.isArray(value) ? value.map((each): [string, string] => [name, each]) : [[name, String(value)] as [string, string]],
  );
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

export interface Described {
  name: string;
  /** the content type; with the charset, if the browser knows it */
  type: string;
  isCompressed: boolean;
}

/** Splits `scores.csv.gz` into its name, its content type, and whether it is compressed. */
export function described(file: { name: string; type: string }): Described {
  const isCompressed = /\.gz$/i.test(file.name);
  const plain = file.name.replace(/\.gz$/i, "");
  const ending = /\.([a-z]+)$/i.exec(plain)?.[1]?.toLowerCase() ?? "";
  const name = ending in TYPES ? plain.slice(0, -ending.length - 1) : plain;
  const charset = /;\s*charset=.*$/i.exec(file.type)?.[0] ?? "";
  return { name: name || "dataset", type: (TYPES[ending] ?? "text/csv") + charset, isCompressed };
}

/** Returns the choices that reading a file may need; none for formats that bring their types. */
export function choicesOf(file: { name: string; type: string }): FieldName[] {
  const { type } = described(file);
  if (type.startsWith(WORKBOOK)) return OF_WORKBOOK;
  return /^text|^application\/zip/.test(type) ? OF_TEXT : [];
}

/** Returns a random Idempotency-Key. Not by crypto.randomUUID, which needs TLS. */
export function idempotencyKey(): string {
  const parts = crypto.getRandomValues(new Uint32Array(4));
  return [...parts].map((part) => part.toString(36)).join("-");
}
