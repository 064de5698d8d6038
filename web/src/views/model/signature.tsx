/** The signature of a version: its inputs and outputs. */

import type { ColumnReading, InputColumn, ModelVersion } from "../../api";
import { cell, count, moment, number, percent } from "../../format";
import { Scroll } from "../../components/scroll";
import { columnWords, MISSING } from "../datasets/reading";

const MOST = 100; // columns listed
const MOST_VALUES = 6; // categories listed per column

export function SignatureTable({ version }: { version: ModelVersion }) {
  const { inputs, outputs } = version.signature;
  return (
    <section class="card" aria-labelledby="signature">
      <h3 id="signature">Signature</h3>
      <Scroll label="Table of inputs">
        <table>
          <caption>Inputs</caption>
          <thead>
            <tr>
              <th scope="col">Column</th>
              <th scope="col">Type</th>
              <th scope="col">Values in training rows</th>
            </tr>
          </thead>
          <tbody>
            {inputs.slice(0, MOST).map((input) => (
              <tr key={input.name}>
                <th scope="row">{input.name}</th>
                <td>
                  {input.type}
                  {readAs(input)}
                </td>
                <td>{seen(input)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {inputs.length > MOST && <p class="quiet small">and {count(inputs.length - MOST)} more</p>}
      <table>
        <caption>Outputs</caption>
        <tbody>
          {outputs.map((output) => (
            <tr key={output.name}>
              <th scope="row">{output.name}</th>
              <td>{output.type}</td>
              <td>
                {output.classes
                  ? output.classes.map(cell).slice(0, MOST_VALUES * 2).join(", ")
                  : `${number(output.min)} to ${number(output.max)}`}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** Returns how the text of a cell is read, if not in the usual way: " (decimal comma)" */
function readAs({ reading }: InputColumn): string {
  const words = reading ? columnWords(reading as unknown as ColumnReading, MISSING) : [];
  return words.length > 0 ? ` (${words.join(", ")})` : "";
}

function seen(input: InputColumn): string {
  const missing = input.required ? "" : `, ${count(input.missing)} missing`;
  if (input.categories) {
    const values = input.categories.slice(0, MOST_VALUES).map(({ value }) => cell(value));
    const left = input.categories.length - values.length;
    return `${values.join(", ")}${left > 0 ? ` and ${left} more` : ""}${missing}`;
  }
  if (input.type === "boolean") return `${shares(input.mean)}${missing}`;
  if (input.min === null || input.min === undefined) return `no values${missing}`;
  const format = input.type === "datetime" ? (value: unknown) => moment(timeOf(Number(value))) : number;
  return `${format(input.min)} to ${format(input.max)}${missing}`;
}

/** 0.25 → "25 % true, 75 % false" */
function shares(mean: number | null | undefined): string {
  if (mean === null || mean === undefined) return "no values";
  return `${percent(mean)} true, ${percent(1 - mean)} false`;
}

/** Formats a time that the signature gives in seconds since 1970. */
export function timeOf(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().slice(0, 19);
}
