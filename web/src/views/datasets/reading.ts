/** How a file and its columns are read, in words. */

import type { Column, ColumnReading, FileOverride, FileReading } from "../../api";
import { sentence } from "../../format";

/** Texts that mean missing unless the upload names others, as `models/reading.py` lists them. */
export const MISSING = [
  "NA", "na", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "Null", "?",
  "#N/A", "<NA>", "NaT", "\\N",
];

/** Units that may stand beside a number, as `models/reading.py` lists them. */
export const UNITS = [
  "%", "‰", "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₪", "₫", "฿", "₦", "₱", "US$",
  "USD", "EUR", "GBP", "JPY", "CNY", "INR", "CHF", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN",
  "NZD", "SGD", "HKD", "MXN", "BRL", "ZAR", "Fr.", "kr", "zł", "Kč", "R$", "Rs.", "Rs",
];

/** The form of a date → its words, with the last day of 2024 as an example. */
export const DATE_FORMS: Record<string, string> = {
  "%Y-%m-%d": "year-month-day (2024-12-31)",
  "%Y/%m/%d": "year/month/day (2024/12/31)",
  "%Y.%m.%d": "year.month.day (2024.12.31)",
  "%d.%m.%Y": "day.month.year (31.12.2024)",
  "%m.%d.%Y": "month.day.year (12.31.2024)",
  "%m/%d/%Y": "month/day/year (12/31/2024)",
  "%d/%m/%Y": "day/month/year (31/12/2024)",
  "%m-%d-%Y": "month-day-year (12-31-2024)",
  "%d-%m-%Y": "day-month-year (31-12-2024)",
  "%m/%d/%y": "month/day/short year (12/31/24)",
  "%d/%m/%y": "day/month/short year (31/12/24)",
  "%d.%m.%y": "day.month.short year (31.12.24)",
  "%d-%b-%Y": "day-month name-year (31-Dec-2024)",
  "%d-%b-%y": "day-month name-short year (31-Dec-24)",
  "%d %b %Y": "day, month name, year (31 Dec 2024)",
  "%b %d, %Y": "month name, day, year (Dec 31, 2024)",
  "%Y%m%d": "year, month, day in eight digits (20241231)",
  "%Y-%m": "year-month (2024-12)",
  "%m/%Y": "month/year (12/2024)",
  "%b %Y": "month name, year (Dec 2024)",
  "%H:%M": "time of day (23:59)",
};

export const DELIMITERS: Record<string, string> = {
  ",": "comma",
  ";": "semicolon",
  "\t": "tab",
  "|": "pipe",
  " ": "blank",
};

/** The mark between thousands → its name. */
export const THOUSANDS: Record<string, string> = {
  ",": "comma",
  ".": "point",
  " ": "blank",
  "'": "apostrophe",
  _: "underscore",
};

/** The encodings that the page offers; the service knows more. */
export const ENCODINGS: Record<string, string> = {
  "utf-8": "UTF-8",
  "utf-16": "UTF-16",
  "windows-1252": "Windows-1252 (Western Europe)",
  "latin-1": "Latin 1 (ISO 8859-1)",
  "iso-8859-15": "Latin 9 (ISO 8859-15)",
  macintosh: "Mac Roman",
  cp850: "DOS (code page 850)",
  "windows-1250": "Windows-1250 (Central Europe)",
  "iso-8859-2": "Latin 2 (ISO 8859-2)",
  "windows-1251": "Windows-1251 (Cyrillic)",
  "koi8-r": "KOI8-R (Cyrillic)",
  "windows-1253": "Windows-1253 (Greek)",
  "windows-1254": "Windows-1254 (Turkish)",
  "shift-jis": "Shift JIS (Japanese)",
  "euc-jp": "EUC-JP (Japanese)",
  gb18030: "GB 18030 (Chinese)",
  big5: "Big5 (Chinese)",
  "euc-kr": "EUC-KR (Korean)",
};

/** A choice of how a file is read. */
export type FieldName = keyof FileOverride;

/** The fields of a text file, and those of a workbook. */
export const OF_TEXT: FieldName[] = ["encoding", "delimiter", "skip_lines", "header", "missing_values"];
export const OF_WORKBOOK: FieldName[] = ["sheet", "skip_lines", "header", "missing_values"];

/** Returns the fields that make sense for a file; none for formats that bring their types. */
export function fieldsOf(reading: FileReading | null | undefined): FieldName[] {
  if (!reading) return [...OF_TEXT, "sheet"]; // an old version does not tell its format
  if (reading.sheet) return OF_WORKBOOK;
  if (reading.delimiter) return OF_TEXT;
  if (reading.encoding) return ["encoding", "missing_values"];
  return reading.missing_values ? ["missing_values"] : [];
}

/** Describes the reading of a file: "UTF-8", "separated by semicolons", … */
export function fileWords(reading: FileReading): string[] {
  const { encoding, delimiter, header, skip_lines: skipped, missing_values: missing, sheet } = reading;
  const words: string[] = [];
  if (sheet) words.push(`sheet “${sheet}”`);
  if (encoding) words.push((ENCODINGS[encoding] ?? encoding.toUpperCase()).replace(/ \(.*/, ""));
  if (delimiter) words.push(`separated by ${DELIMITERS[delimiter] ?? `“${delimiter}”`}s`);
  if (skipped) words.push(skipped === 1 ? "1 line skipped" : `${skipped} lines skipped`);
  if (header === true) words.push("the first row names the columns");
  if (header === false) words.push("no row of names");
  if (missing && !isSame(missing, MISSING)) words.push(`missing: ${listed(missing)}`);
  return words;
}

const ASPECTS: Record<string, string> = { skip_lines: "lines skipped", header: "names", missing_values: "missing values" };

/** Returns the reasons for the reading of a file: "Delimiter: the first line names it." */
export function fileReasons(reading: FileReading): string[] {
  const reasons = Object.entries(reading.why ?? {});
  return reasons.map(([name, reason]) => sentence(`${ASPECTS[name] ?? name}: ${reason}`));
}

/** Describes what differs from the usual reading of a column: "decimal comma", "percent", … */
export function columnWords(reading: ColumnReading, missing: readonly string[]): string[] {
  return [...typeWords(reading), ...missingWords(reading, missing)];
}

function typeWords(reading: ColumnReading): string[] {
  const { type, decimal, thousands, unit, form } = reading;
  const words: string[] = [];
  if (type === "number" || type === "integer") {
    if (decimal === ",") words.push("decimal comma");
    if (thousands) words.push(`thousands ${THOUSANDS[thousands] ?? thousands}`);
    if (unit) words.push(unitWord(unit));
  }
  if (type === "datetime" && form) words.push(`dates: ${DATE_FORMS[form] ?? form}`.replace(/ \(.*/, ""));
  if (type === "boolean" && (reading.true ?? reading.false)) {
    words.push(`true = ${reading.true ?? "true"}, false = ${reading.false ?? "false"}`);
  }
  if (reading.merges_numbers) words.push("1 and 1.0 are one category");
  return words;
}

function missingWords(reading: ColumnReading, missing: readonly string[]): string[] {
  const further = furtherMissing(reading, missing);
  return further.length > 0 ? [`also missing: ${listed(further)}`] : [];
}

/** Returns the texts that mean missing in this column and not in the whole table. */
export function furtherMissing(reading: ColumnReading | null | undefined, missing: readonly string[]): string[] {
  return (reading?.missing ?? []).filter((text) => text !== "" && !missing.includes(text));
}

/** Returns the texts that mean missing in the whole table. */
export function missingOf(reading: FileReading | null | undefined): string[] {
  return (reading?.missing_values ?? MISSING).filter((text) => text !== "");
}

export function listed(texts: readonly string[]): string {
  return texts.filter((text) => text !== "").join(", ");
}

/** Splits "-999, n.a." into its texts. */
export function unlisted(text: string): string[] {
  return [...new Set(text.split(",").map((each) => each.trim()).filter(Boolean))];
}

export function isOfNumbers(type: Column["type"]): boolean {
  return type === "number" || type === "integer";
}

function unitWord(unit: string): string {
  if (unit === "%") return "percent";
  return unit === "‰" ? "per mille" : `in ${unit}`;
}

function isSame(one: readonly string[], other: readonly string[]): boolean {
  return listed([...one].sort()) === listed([...other].sort());
}
