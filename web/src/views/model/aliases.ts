/** Aliases with their ETags. A move sends the ETag it is based on, so it cannot overwrite another move. */

import { type Alias, call, getModelAlias, listModelAliases, putModelAlias, rollBackModelAlias } from "../../api";
import { idempotencyKey } from "../datasets/upload";

export interface KnownAlias {
  alias: Alias;
  etag: string;
}

const MOST = 200; // aliases of a model that are shown

export async function loadAliases(name: string, signal: AbortSignal): Promise<KnownAlias[]> {
  const page = await call(listModelAliases({ path: { name }, query: { limit: MOST }, signal }));
  const found = await Promise.all(page.data.map(({ alias }) => loadAlias(name, alias, signal)));
  return found.sort((one, other) => one.alias.alias.localeCompare(other.alias.alias));
}

async function loadAlias(name: string, alias: string, signal: AbortSignal): Promise<KnownAlias> {
  const request = getModelAlias({ path: { name, alias }, signal });
  return known(await call(request), await request);
}

/** Moves an alias to a version; creates the alias if `before` is null. */
export async function moveAlias(name: string, alias: string, version: number, before: KnownAlias | null): Promise<KnownAlias> {
  const headers = before ? { "If-Match": before.etag } : {};
  const request = putModelAlias({ path: { name, alias }, body: { version }, headers });
  return known(await call(request), await request);
}

export async function rollBack(name: string, before: KnownAlias): Promise<KnownAlias> {
  const headers = { "If-Match": before.etag, "Idempotency-Key": idempotencyKey() };
  const request = rollBackModelAlias({ path: { name, alias: before.alias.alias }, headers });
  return known(await call(request), await request);
}

function known(alias: Alias, { response }: { response?: Response }): KnownAlias {
  return { alias, etag: response?.headers.get("ETag") ?? "" };
}
