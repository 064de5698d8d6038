/** Files from and to the service; the API key is sent in a header only. */

import { refusal } from "../../api";
import { BASE, headers } from "../../session";

/** Sends a request and returns the response body; throws a Refusal. */
export async function fetched(path: string, init: RequestInit = {}): Promise<Blob> {
  const own = { ...headers(), ...(init.headers as Record<string, string> | undefined) };
  let response: Response;
  try {
    response = await fetch(`${BASE}${path}`, { ...init, headers: own });
  } catch (error) {
    if (error instanceof DOMException) throw error;
    throw refusal(null);
  }
  if (response.ok) return response.blob();
  throw refusal(await response.json().catch(() => null), response);
}

export function artifactPath(model: string, version: number, format: "bundle" | "onnx"): string {
  return `/api/v1/models/${encodeURIComponent(model)}/versions/${version}/artifact?format=${format}`;
}

const ENTRY = 0x02014b50; // signature of an entry in a ZIP file's central directory
const END = 0x06054b50; // signature of the end of the central directory

/** Returns a member of a bundle. Bundles store their members uncompressed. */
export async function member(bundle: Blob, name: string): Promise<Blob> {
  const view = new DataView(await bundle.arrayBuffer());
  let end = view.byteLength - 22;
  while (end > 0 && view.getUint32(end, true) !== END) end--;
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0 && view.getUint32(at, true) === ENTRY; left--) {
    const [size, nameSize] = [view.getUint32(at + 20, true), view.getUint16(at + 28, true)];
    const found = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, nameSize));
    const local = view.getUint32(at + 42, true);
    if (found === name) {
      const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      return bundle.slice(start, start + size);
    }
    at += 46 + nameSize + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  throw new Error(`The bundle does not contain ${name}.`);
}
