/** The API key: held for this tab only, sent as a header, never in a cookie or a URL. */

import { client } from "./generated/client.gen";

const ITEM = "descent.key";
const listeners = new Set<() => void>();
let isWanted = false;

/** The base URL of the service: the page's own, also behind a proxy that adds a prefix. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

client.setConfig({ baseUrl: BASE, auth: () => key() ?? undefined });

export function key(): string | null {
  return sessionStorage.getItem(ITEM);
}

export function setKey(secret: string | null): void {
  if (secret) sessionStorage.setItem(ITEM, secret);
  else sessionStorage.removeItem(ITEM);
  isWanted = false;
  tell();
}

export function headers(): Record<string, string> {
  const secret = key();
  return secret ? { Authorization: `Bearer ${secret}` } : {};
}

/** Whether the service refused a call because the key was missing or wrong: the page then asks for one. */
export function isKeyWanted(): boolean {
  return isWanted;
}

export function wantKey(wanted = true): void {
  if (isWanted === wanted) return;
  isWanted = wanted;
  tell();
}

export function onSession(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(): void {
  for (const listener of listeners) listener();
}
