/** A prediction form made from the signature; each change updates the prediction. */

import { useEffect, useRef, useState } from "preact/hooks";
import { call, type InputColumn, type ModelVersion, type Prediction, type Predictions, predictWithVersion } from "../../api";
import { Failure } from "../../components/failure";
import { cell, number, percent } from "../../format";
import { Bar } from "./version";
import { timeOf } from "./signature";

type Scalar = string | number | boolean | null;
type InputRow = Record<string, Scalar>;

const WAIT = 60; // milliseconds without a change before the request is sent
const MOST = 60; // columns with a field; the others count as missing

export function Predict({ version }: { version: ModelVersion }) {
  const inputs = version.signature.inputs.slice(0, MOST);
  const [row, setRow] = useState<InputRow>(() => Object.fromEntries(inputs.map((input) => [input.name, typicalValue(input)])));
  const { answer, error } = usePrediction(version, row);
  return (
    <section class="card" aria-labelledby="predict">
      <h3 id="predict">Predict</h3>
      <div class="predict">
        <div class="fields">
          {inputs.map((input) => (
            <InputField
              key={input.name}
              input={input}
              value={row[input.name] ?? null}
              onValue={(value) => setRow((before) => ({ ...before, [input.name]: value }))}
            />
          ))}
          {version.signature.inputs.length > MOST && (
            <p class="quiet small">
              The form leaves out the other {version.signature.inputs.length - MOST} columns; they count as missing.
            </p>
          )}
        </div>
        <div class="answer" aria-live="polite">
          {error !== null && <Failure error={error} />}
          {answer && <PredictionResult version={version} answer={answer} />}
        </div>
      </div>
    </section>
  );
}

/** Predicts once the row has not changed for a moment; only the last row counts. */
function usePrediction(version: ModelVersion, row: InputRow): { answer: Prediction | null; error: unknown } {
  const [answer, setAnswer] = useState<Prediction | null>(null);
  const [error, setError] = useState<unknown>(null);
  const isFirst = useRef(true);
  useEffect(() => {
    const abort = new AbortController();
    const ask = async () => {
      try {
        const path = { name: version.model, version: version.version };
        const request = predictWithVersion({ path, body: { rows: [row] }, query: { explain: true }, signal: abort.signal });
        const body = (await call(request)) as Predictions;
        if (abort.signal.aborted) return;
        setAnswer(body.predictions[0] ?? null);
        setError(null);
      } catch (refused) {
        if (!abort.signal.aborted) setError(refused);
      }
    };
    const timer = setTimeout(() => void ask(), isFirst.current ? 0 : WAIT);
    isFirst.current = false;
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [row, version]);
  return { answer, error };
}

/** Returns a typical value of the training rows. */
function typicalValue(input: InputColumn): Scalar {
  if (input.categories) return (input.categories[0]?.value as Scalar | undefined) ?? null;
  if (input.mean === null || input.mean === undefined) return null;
  if (input.type === "boolean") return input.mean >= 0.5;
  if (input.type === "datetime") return timeOf(input.mean);
  if (input.type === "integer") return Math.round(input.mean);
  return Number(input.mean.toPrecision(4));
}

interface InputFieldProps {
  input: InputColumn;
  value: Scalar;
  onValue: (value: Scalar) => void;
}

function InputField({ input, value, onValue }: InputFieldProps) {
  if (input.categories) return <InputChoice {...{ input, value, onValue }} values={input.categories.map((each) => each.value as Scalar)} />;
  if (input.type === "boolean") return <InputChoice {...{ input, value, onValue }} values={[false, true]} />;
  if (input.type === "datetime") {
    return (
      <label class="field">
        <span>{input.name}</span>
        <input
          type="datetime-local"
          step="1"
          value={typeof value === "string" ? value : ""}
          onInput={(event) => onValue(event.currentTarget.value || null)}
        />
      </label>
    );
  }
  return <InputSlider {...{ input, value, onValue }} />;
}

function InputChoice({ input, value, onValue, values }: InputFieldProps & { values: Scalar[] }) {
  const place = values.indexOf(value);
  return (
    <label class="field">
      <span>{input.name}</span>
      <select value={place} onChange={(event) => onValue(values[Number(event.currentTarget.value)] ?? null)}>
        {values.map((each, index) => (
          <option key={index} value={index}>
            {spelled(each, input) || "(empty)"}
          </option>
        ))}
        <option value={-1}>(missing)</option>
      </select>
    </label>
  );
}

/** Returns the text of a value as the table spelled it: "Yes" for true. */
function spelled(value: Scalar, { reading }: InputColumn): string {
  const word = typeof value === "boolean" ? reading?.[String(value)] : undefined;
  return typeof word === "string" ? word : cell(value);
}

const STEPS = 200; // of a slider

function InputSlider({ input, value, onValue }: InputFieldProps) {
  const [typed, setTyped] = useState<string | null>(null);
  const [least, most] = [input.min ?? 0, input.max ?? 1];
  const width = most - least || Math.abs(most) || 1;
  const isWhole = input.type === "integer";
  const step = isWhole ? Math.max(1, Math.round(width / STEPS)) : niceStep(width / STEPS);
  const shown = typed ?? (value === null ? "" : String(value));
  const outside = typeof value === "number" && (value < least || value > most);
  return (
    <div class="field slider">
      <span id={`label-${input.name}`}>{input.name}</span>
      <div class="row">
        <input
          type="range"
          aria-labelledby={`label-${input.name}`}
          min={isWhole ? least : Math.floor(least / step) * step}
          max={isWhole ? most : Math.ceil(most / step) * step}
          step={step}
          value={typeof value === "number" ? value : (input.mean ?? least)}
          onInput={(event) => {
            setTyped(null);
            onValue(Number(Number(event.currentTarget.value).toPrecision(10)));
          }}
        />
        <input
          class="number"
          aria-label={`${input.name} as a number; leave empty if missing`}
          inputMode="decimal"
          autocomplete="off"
          placeholder="missing"
          value={shown}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            const text = event.currentTarget.value.trim();
            onValue(text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));
          }}
          onBlur={() => setTyped(null)}
        />
      </div>
      <small>
        {outside ? "outside the training range, " : ""}
        {number(least)} to {number(most)}
      </small>
    </div>
  );
}

function niceStep(rough: number): number {
  const size = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5].map((each) => each * size).find((each) => each >= rough) ?? 10 * size;
}

function PredictionResult({ version, answer }: { version: ModelVersion; answer: Prediction }) {
  const names = version.signature.outputs.map((output) => output.name);
  const { value, probabilities, warnings, error, explanation } = answer;
  const single = typeof value !== "object" || value === null;
  return (
    <>
      <p class="quiet small">{names.join(", ")}</p>
      {single ? (
        <p class="predicted">{typeof value === "number" ? number(value) : cell(value) || "no prediction"}</p>
      ) : (
        <dl class="facts">
          {Object.entries(value).map(([name, each]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{typeof each === "number" ? number(each) : cell(each)}</dd>
            </div>
          ))}
        </dl>
      )}
      {error && <p class="missing">{error.detail}</p>}
      {probabilities && <Probabilities shares={probabilities as Record<string, number>} />}
      {explanation && "base" in explanation && (
        <Contributions contributions={(explanation as { contributions: Record<string, number> }).contributions} />
      )}
      {warnings && warnings.length > 0 && (
        <ul class="warnings small">
          {warnings.map((warning) => (
            <li key={`${warning.code} ${warning.column}`}>
              {warning.column && <code>{warning.column}</code>} {warning.detail}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

const MOST_CLASSES = 8;

function Probabilities({ shares }: { shares: Record<string, number> }) {
  const sorted = Object.entries(shares);
  const shown = sorted.length > MOST_CLASSES ? sorted.sort((one, other) => other[1] - one[1]).slice(0, MOST_CLASSES) : sorted;
  return (
    <table class="bars">
      <caption class="unseen">Probabilities</caption>
      <tbody>
        {shown.map(([name, share]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="wide">
              <Bar share={share} />
            </td>
            <td class="right nowrap">{percent(share)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const MOST_CONTRIBUTIONS = 6;

function Contributions({ contributions }: { contributions: Record<string, number> }) {
  const sorted = Object.entries(contributions).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  const shown = sorted.slice(0, MOST_CONTRIBUTIONS);
  const most = Math.max(...shown.map(([, value]) => Math.abs(value)), 1e-12);
  return (
    <table class="bars">
      <caption>Contribution of each column to the prediction</caption>
      <tbody>
        {shown.map(([name, value]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="wide">
              <Bar share={Math.abs(value) / most} color={value < 0 ? "--second" : "--accent"} />
            </td>
            <td class="right">{value > 0 ? `+${number(value)}` : number(value)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
