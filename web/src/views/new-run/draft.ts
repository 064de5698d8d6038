/** The request that the form builds: it holds only values that differ from the defaults, which keeps it short. */

import type { Dataset, RunConfig } from "../../api";
import { component, defaultIn, type Json, type JsonObject, resolve, same, type Schema, variants } from "./schema";

export interface Draft {
  dataset: string;
  /** a column; several only in a cloned run */
  target: string | string[];
  /** all other settings that differ from their defaults */
  rest: JsonObject;
}

const RUN = component("RunConfig").properties ?? {};
export function field(name: string): Schema {
  return RUN[name] ?? {};
}

export function defaultOf(name: string): Json {
  return defaultIn(field(name)) ?? null;
}

export function valueOf(draft: Draft, name: string): Json {
  return draft.rest[name] ?? (name in draft.rest ? null : defaultOf(name));
}

/** Sets a field of the draft; a default value is left out. */
export function withValue(draft: Draft, name: string, value: Json): Draft {
  const { [name]: _before, ...rest } = draft.rest;
  const isDefault = same(value, defaultOf(name));
  return { ...draft, rest: isDefault ? rest : { ...rest, [name]: value } };
}

export function request(draft: Draft): RunConfig {
  const body: JsonObject = { dataset: draft.dataset, target: draft.target, ...draft.rest };
  return body as unknown as RunConfig;
}

/** Returns the initial draft for a dataset. */
export function firstDraft(dataset: Dataset): Draft {
  return {
    dataset: dataset.id,
    target: likelyTarget(dataset),
    rest: { register_as: modelName(dataset.name) },
  };
}

/** Returns a draft with the configuration of a run: a training, also from a test of learning rates. */
export function draftOf(config: JsonObject, dataset: Dataset): Draft {
  let draft: Draft = { dataset: dataset.id, target: config["target"] as string | string[], rest: {} };
  for (const name of Object.keys(RUN)) {
    const value = config[name];
    if (["dataset", "target", "lr_range", "preset"].includes(name) || value === undefined) continue;
    draft = withValue(draft, name, shortened(field(name), value));
  }
  return draft;
}

/** Leaves out the default values of an object, so that equal settings compare as equal. */
function shortened(schema: Schema, value: Json): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const choice = variants(schema).get(String(value["type"])) ?? resolve(schema);
  const own = Object.entries(value).filter(
    ([name, part]) => name === "type" || !same(part, defaultIn(choice.properties?.[name] ?? {})),
  );
  const short = Object.fromEntries(own);
  const whole = schema["x-default"];
  return whole && same(whole["type"], short["type"]) && own.length === 1 ? (whole as Json) : short;
}

/** Guesses the target: the last feature with more than one value. */
function likelyTarget(dataset: Dataset): string {
  const columns = dataset.columns ?? [];
  const features = columns.filter((column) => column.role === "feature" && column.distinct > 1);
  return (features.at(-1) ?? columns.at(-1))?.name ?? "";
}

export function modelName(text: string): string {
  const plain = text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+|-+$/g, "");
  return plain.slice(0, 128) || "model";
}
