import assert from "node:assert/strict";
import { test } from "node:test";
import type { Column, ColumnReading } from "../src/api";
import { changes, EMPTY, isEmpty, patchOf, remedyOf, withColumn, withFile, withoutRequest, withType } from "../src/views/datasets/draft";
import { columnWords, fieldsOf, fileReasons, fileWords, missingOf, unlisted } from "../src/views/datasets/reading";
import { choicesOf, chosen, described } from "../src/views/datasets/upload";

function column(name: string, reading: ColumnReading): Column {
  return { name, type: reading.type, reading } as unknown as Column;
}

const INCOME = column("income", { type: "number", decimal: ",", unit: "€" });
const DAY = column("day", { type: "datetime", form: "%m/%d/%Y" });

test("a file's reading is described in plain words", () => {
  const reading = { encoding: "windows-1252", delimiter: ";", skip_lines: 2, header: true, missing_values: ["-999", ""] };
  assert.deepEqual(fileWords(reading), [
    "Windows-1252",
    "separated by semicolons",
    "2 lines skipped",
    "the first row names the columns",
    "missing: -999",
  ]);
  assert.deepEqual(fileWords({ sheet: "Data", header: false }), ["sheet “Data”", "no row of names"]);
  assert.deepEqual(fileReasons({ why: { skip_lines: "they begin with #" } }), ["Lines skipped: they begin with #."]);
});

test("the usual missing texts are not repeated", () => {
  assert.deepEqual(fileWords({ missing_values: ["", ...missingOf({})] }), []);
});

test("a column's reading tells what is not usual", () => {
  const words = (reading: ColumnReading) => columnWords(reading, ["NA"]);
  assert.deepEqual(words({ type: "number" }), []);
  assert.deepEqual(words({ type: "number", decimal: ",", thousands: ".", unit: "%" }), [
    "decimal comma",
    "thousands point",
    "percent",
  ]);
  assert.deepEqual(words({ type: "datetime", form: "%d/%m/%Y" }), ["dates: day/month/year"]);
  assert.deepEqual(words({ type: "boolean", true: "Yes", false: "No" }), ["true = Yes, false = No"]);
  assert.deepEqual(words({ type: "number", missing: ["", "NA", "-"] }), ["also missing: -"]);
});

test("only the fields of the format are offered", () => {
  assert.deepEqual(fieldsOf({}), []);
  assert.ok(fieldsOf({ encoding: "utf-8", delimiter: "," }).includes("delimiter"));
  assert.ok(!fieldsOf({ sheet: "Data" }).includes("encoding"));
  assert.ok(fieldsOf(null).includes("sheet"));
});

test("a field that is set back leaves an empty draft", () => {
  const draft = withFile(withColumn(EMPTY, "income", { unit: "%" }), { skip_lines: 2 });
  assert.equal(changes(draft), "the file and “income”");
  assert.ok(isEmpty(withFile(withColumn(draft, "income", { unit: undefined }), { skip_lines: undefined })));
});

test("a request holds all marks that the form shows", () => {
  const draft = withColumn(EMPTY, "income", { thousands: "." });
  assert.deepEqual(patchOf(draft, [INCOME]), {
    columns: { income: { decimal: ",", thousands: ".", unit: "€" } },
  });
});

test("another type drops the marks of the one before it", () => {
  const draft = withType(withColumn(EMPTY, "income", { decimal: "." }), INCOME, "text");
  assert.deepEqual(patchOf(draft, [INCOME]).columns?.["income"], {
    type: "text",
    decimal: null,
    thousands: null,
    unit: null,
    form: null,
    day_first: null,
  });
  assert.ok(isEmpty(withType(draft, INCOME, "number")));
});

test("a warning is answered by the other reading", () => {
  const remedy = (code: string, of: Column) => remedyOf({ code, detail: "", column: of.name }, [INCOME, DAY, of])?.fields;
  assert.deepEqual(remedy("ambiguous_date", DAY), { day_first: true });
  assert.deepEqual(remedy("ambiguous_date", column("d", { type: "datetime", form: "%d.%m.%Y" })), { day_first: false });
  assert.deepEqual(remedy("ambiguous_number", INCOME), { decimal: ".", thousands: "," });
  const thousands = column("n", { type: "number", thousands: "," });
  assert.deepEqual(remedy("ambiguous_number", thousands), { decimal: ",", thousands: "" });
  assert.deepEqual(remedy("ambiguous_number", column("n", { type: "number" })), { decimal: ",", thousands: "." });
  assert.deepEqual(remedy("mostly_numbers", column("n", { type: "text" })), { type: "number" });
  assert.equal(remedy("constant", INCOME), undefined);
  assert.equal(remedyOf({ code: "ambiguous_date", detail: "" }, [DAY]), null);
});

test("a warning with a button does not repeat the request", () => {
  const detail = 'It is read as 1.137. Read it in the other way: PATCH {"columns": {"n": {"thousands": ","}}}.';
  assert.equal(withoutRequest({ detail }).detail, "It is read as 1.137. Read it in the other way.");
});

test("missing texts are split at commas", () => {
  assert.deepEqual(unlisted(" -999, n.a.,, -999"), ["-999", "n.a."]);
});

test("a file keeps its charset, and its ending names its type", () => {
  assert.deepEqual(described({ name: "a.csv.gz", type: "" }), { name: "a", type: "text/csv", isCompressed: true });
  const latin = described({ name: "a.csv", type: "text/csv;charset=latin-1" });
  assert.equal(latin.type, "text/csv;charset=latin-1");
  assert.ok(choicesOf({ name: "a.xlsx", type: "" }).includes("sheet"));
  assert.deepEqual(choicesOf({ name: "a.parquet", type: "" }), []);
});

test("an upload names only the choices that were made", () => {
  assert.deepEqual(chosen({ delimiter: "\t", skip_lines: 0, encoding: null, missing_values: ["a", "b"] }), [
    ["delimiter", "\t"],
    ["skip_lines", "0"],
    ["missing_values", "a"],
    ["missing_values", "b"],
  ]);
});
