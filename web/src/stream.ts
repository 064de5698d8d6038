/**
 * Server-sent events over `fetch`, because EventSource cannot send the Authorization header.
 *
 * After a lost connection or a restart of the server, the stream continues after the last event
 * received: no event is lost or repeated.
 */

import { refusal } from "./api";
import { headers } from "./session";

export interface ServerEvent {
  id: string | null;
  event: string;
  data: string;
}

export interface Follow {
  url: string;
  onEvent: (event: ServerEvent) => void;
  /** called when the connection is lost and when it is restored */
  onState?: (state: "open" | "waiting") => void;
  signal: AbortSignal;
  lastId?: string | null;
}

const FIRST_WAIT = 500; // milliseconds before the first retry; doubled each time
const LONGEST_WAIT = 8_000;
const SILENCE = 40_000; // milliseconds; more than two keep-alive comments of the server are missing

/** Resolves when the stream has ended; throws a Refusal if a retry cannot help. */
export async function follow(options: Follow): Promise<void> {
  let last = options.lastId ?? null;
  let wait = FIRST_WAIT;
  while (!options.signal.aborted) {
    const take = (event: ServerEvent) => {
      last = event.id ?? last;
      wait = FIRST_WAIT;
      options.onEvent(event);
    };
    const outcome = await once(options, last, take);
    if (outcome === "ended" || options.signal.aborted) return;
    options.onState?.("waiting");
    await pause(Math.max(outcome, wait * (0.5 + Math.random() / 2)), options.signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}

/** Reads one connection to its end; returns "ended" or the minimum wait in milliseconds. */
async function once(
  options: Follow,
  last: string | null,
  take: (event: ServerEvent) => void,
): Promise<"ended" | number> {
  const silence = new AbortController();
  const signal = AbortSignal.any([options.signal, silence.signal]);
  let timer = setTimeout(() => silence.abort(), SILENCE);
  try {
    const response = await fetch(options.url, { headers: requestHeaders(last), signal, cache: "no-store" });
    if (response.status === 204) return "ended";
    if (response.status === 429 || response.status >= 500) return retryAfter(response);
    if (!response.ok || !response.body) throw refusal(await problem(response), response);
    options.onState?.("open");
    for await (const event of events(response.body, () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE);
    })) {
      take(event);
      if (event.event === "end") return "ended";
    }
    return 0;
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) return 0; // the connection was lost
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function requestHeaders(last: string | null): Record<string, string> {
  const found: Record<string, string> = { Accept: "text/event-stream", ...headers() };
  if (last !== null) found["Last-Event-ID"] = last;
  return found;
}

async function problem(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get("Retry-After"));
  return Number.isFinite(seconds) ? seconds * 1000 : 0;
}

async function* events(
  body: ReadableStream<Uint8Array>,
  onBytes: () => void,
): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      text += decoder.decode(value, { stream: true });
      const blocks = text.split(/\r\n\r\n|\n\n|\r\r/);
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

export function parseEvent(block: string): ServerEvent | null {
  const data: string[] = [];
  let id: string | null = null;
  let name = "message";
  for (const line of block.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "id") id = value;
    else if (field === "event") name = value;
  }
  return data.length ? { id, event: name, data: data.join("\n") } : null;
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
