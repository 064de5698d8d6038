/** The part of JSON Schema that the form reads. */

import * as components from "../../generated/schemas.gen";

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

export interface Schema {
  type?: string;
  title?: string;
  description?: string;
  const?: Json;
  enum?: readonly Json[];
  default?: Json;
  examples?: readonly Json[];
  /** a default that is an object: generators of clients refuse these as `default` */
  "x-default"?: JsonObject;
  properties?: Record<string, Schema>;
  required?: readonly string[];
  items?: Schema;
  anyOf?: readonly Schema[];
  oneOf?: readonly Schema[];
  $ref?: string;
  $defs?: Record<string, Schema>;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  pattern?: string;
  maxLength?: number;
}

const COMPONENTS = components as unknown as Record<string, Schema>;

/** Resolves a reference. */
export function resolve(schema: Schema, definitions: Record<string, Schema> = {}): Schema {
  const name = schema.$ref?.split("/").pop();
  if (name === undefined) return schema;
  return definitions[name] ?? COMPONENTS[`${name}Schema`] ?? {};
}

/** Returns the value of a field that a request leaves out. */
export function defaultIn(schema: Schema): Json | undefined {
  return schema.default ?? schema["x-default"];
}

export function component(name: string): Schema {
  return COMPONENTS[`${name}Schema`] ?? {};
}

/** Returns the variants of a field that is one of several objects, by `type`. */
export function variants(schema: Schema): Map<string, Schema> {
  const found = new Map<string, Schema>();
  for (const each of schema.oneOf ?? schema.anyOf ?? []) {
    const choice = resolve(each, schema.$defs);
    const type = choice.properties?.["type"]?.const;
    if (typeof type === "string") found.set(type, choice);
  }
  return found;
}

/** Returns the words that a field accepts, including those in the parts of a union. */
export function words(schema: Schema): string[] {
  if (typeof schema.const === "string") return [schema.const];
  const own = (schema.enum ?? []).filter((word) => typeof word === "string");
  return [...own, ...(schema.anyOf ?? []).flatMap(words)];
}

/** Returns the numeric part of a union such as "an integer or full". */
export function numeric(schema: Schema): Schema | null {
  if (schema.type === "number" || schema.type === "integer") return schema;
  return schema.anyOf?.map(numeric).find((part) => part !== null) ?? null;
}

/** Returns the label of a field: its title in the schema, or `learning_rate` → "Learning rate". */
export function label(name: string, schema: Schema = {}): string {
  if (schema.title) return schema.title;
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function same(one: Json | undefined, other: Json | undefined): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
