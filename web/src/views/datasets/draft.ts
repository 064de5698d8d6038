/** A change of the way a dataset is read, before it is sent. */

import type { Column, ColumnOverride, Dataset, DatasetPatch, FileOverride } from "../../api";
import { isOfNumbers } from "./reading";

export interface Draft {
  file: FileOverride;
  /** by the name of the column */
  columns: Record<string, ColumnOverride>;
}

export const EMPTY: Draft = { file: {}, columns: {} };

/** Leaves each choice to the service. */
const AUTOMATIC: ColumnOverride = { decimal: null, thousands: null, unit: null, form: null, day_first: null };

export function isEmpty(draft: Draft): boolean {
  return Object.keys(draft.file).length === 0 && Object.keys(draft.columns).length === 0;
}

/** Returns the draft with other fields of a column; `undefined` takes a field back. */
export function withColumn(draft: Draft, name: string, fields: ColumnOverride): Draft {
  const merged = defined({ ...draft.columns[name], ...fields });
  const { [name]: _before, ...others } = draft.columns;
  return { ...draft, columns: Object.keys(merged).length > 0 ? { ...others, [name]: merged } : others };
}

/** Returns the draft with another type; the fields of the type before it are dropped. */
export function withType(draft: Draft, column: Column, type: Column["type"] | null): Draft {
  const none = { decimal: undefined, thousands: undefined, unit: undefined, form: undefined, day_first: undefined };
  return withColumn(draft, column.name, { ...none, type: type === column.type ? undefined : type });
}

export function withFile(draft: Draft, fields: FileOverride): Draft {
  return { ...draft, file: defined({ ...draft.file, ...fields }) };
}

/** Returns the type that a column would have, as far as the draft says. */
export function typeIn(draft: Draft, column: Column): Column["type"] {
  return draft.columns[column.name]?.type ?? column.type;
}

/** Returns the body of the request. */
export function patchOf(draft: Draft, columns: readonly Column[]): DatasetPatch {
  const known = new Map(columns.map((column) => [column.name, column]));
  const entries = Object.entries(draft.columns).map(([name, fields]) => [name, complete(fields, known.get(name))]);
  const patch: DatasetPatch = { columns: Object.fromEntries(entries) };
  return Object.keys(draft.file).length > 0 ? { ...patch, reading: draft.file } : patch;
}

/** Adds what the form shows and the reader did not touch, so that the service decides nothing else. */
function complete(fields: ColumnOverride, column: Column | undefined): ColumnOverride {
  if (fields.type !== undefined) return { ...AUTOMATIC, ...fields }; // the marks of the type before it do not stay
  const isOfMarks = "decimal" in fields || "thousands" in fields || "unit" in fields;
  return column && isOfMarks ? { ...marksOf(column), ...fields } : fields;
}

/** Returns the marks with which the numbers of a column are read now. */
export function marksOf({ type, reading }: Column): Pick<ColumnOverride, "decimal" | "thousands" | "unit"> {
  if (!reading || !isOfNumbers(type)) return {};
  const marks = { thousands: reading.thousands ?? "", unit: reading.unit ?? "" } as ColumnOverride;
  // A whole number has no decimals, and an override of their mark would make a number of it.
  return type === "number" ? { ...marks, decimal: (reading.decimal ?? ".") as "." | "," } : marks;
}

/** Describes a draft: "the file, a and b" */
export function changes(draft: Draft): string {
  const names = Object.keys(draft.columns).map((name) => `“${name}”`);
  const parts = [...(Object.keys(draft.file).length > 0 ? ["the file"] : []), ...names];
  if (parts.length > 4) return `${parts.slice(0, 3).join(", ")} and ${parts.length - 3} more`;
  return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : (parts[0] ?? "");
}

// ---- remedies -----------------------------------------------------------------------------------

export interface Remedy {
  /** the label of the button */
  label: string;
  column: string;
  fields: ColumnOverride;
}

type Notice = NonNullable<Dataset["warnings"]>[number];

const MONTH_FIRST = ["%m.%d.%Y", "%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y"];

/** Returns the correction of a column that a warning suggests. */
export function remedyOf(notice: Notice, columns: readonly Column[]): Remedy | null {
  const column = columns.find(({ name }) => name === notice.column);
  if (!column) return null;
  const found = suggested(notice.code, column);
  return found && { ...found, column: column.name };
}

/** Leaves out the request that a warning names for programs; the page has a button instead. */
export function withoutRequest<N extends { detail: string }>(notice: N): N {
  return { ...notice, detail: notice.detail.replace(/: PATCH \{.*\}\.(?= |$)/, ".") };
}

function suggested(code: string, column: Column): Omit<Remedy, "column"> | null {
  const { type, reading } = column;
  if (code === "ambiguous_date") {
    // Versions without a reading put the month first in dates with slashes.
    const isDayFirst = reading?.form ? !MONTH_FIRST.includes(reading.form) : false;
    return { label: isDayFirst ? "Month first" : "Day first", fields: { day_first: !isDayFirst } };
  }
  if (code === "ambiguous_number") return otherMark(reading?.decimal ?? ".", reading?.thousands ?? "");
  if (code === "mostly_numbers" && !isOfNumbers(type)) return { label: "Read as numbers", fields: { type: "number" } };
  if (code === "mostly_dates") {
    return type === "datetime"
      ? { label: "Keep the text", fields: { type: "text" } }
      : { label: "Read as dates", fields: { type: "datetime" } };
  }
  return null;
}

/** Returns the other reading of numbers such as 1,137. */
function otherMark(decimal: string, thousands: string): Omit<Remedy, "column"> {
  const isComma = thousands === "," || (decimal === "," && thousands === "");
  const isThousands = thousands !== "";
  const name = isComma ? "Comma" : "Point";
  if (isThousands) return { label: `${name} before decimals`, fields: { decimal: isComma ? "," : ".", thousands: "" } };
  const fields: ColumnOverride = isComma ? { decimal: ".", thousands: "," } : { decimal: ",", thousands: "." };
  return { label: `${name} between thousands`, fields };
}

function defined<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}
