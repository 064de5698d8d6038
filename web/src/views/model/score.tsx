/** Predicts every row of a file: shows the first predictions and offers all of them as CSV. */

import { useRef, useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { Failure } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { bytes, count, counted } from "../../format";
import { announce } from "../../news";
import { save } from "../../save";
import { described } from "../datasets/upload";
import { parseCsv } from "./csv";
import { fetched } from "./files";

interface Scored {
  name: string;
  content: Blob;
  header: string[];
  rows: string[][];
  total: number;
}

const SHOWN = 12; // rows

export function Score({ version }: { version: ModelVersion }) {
  const [isOver, setOver] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [scored, setScored] = useState<Scored | null>(null);
  const input = useRef<HTMLInputElement>(null);

  async function score(file: File | undefined): Promise<void> {
    if (!file) return;
    setBusy(true);
    setError(null);
    setScored(null);
    try {
      const found = await answered(version, file);
      setScored(found);
      announce(`Predicted ${counted(found.total, "row")} of ${file.name}.`);
    } catch (refused) {
      setError(refused);
    } finally {
      setBusy(false);
    }
  }

  return (
    <section class="card" aria-labelledby="score">
      <h3 id="score">Score a table</h3>
      <div
        class={isOver ? "drop slim over" : "drop slim"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          void score(event.dataTransfer?.files[0]);
        }}
      >
        <p class="quiet">
          Drop a CSV, NDJSON, JSON, Parquet or Arrow file with the columns of the signature. Use a batch prediction for more
          rows than one request allows.
        </p>
        <button type="button" disabled={isBusy} onClick={() => input.current?.click()}>
          {isBusy ? "Predicting…" : "Choose a file"}
        </button>
        <input
          ref={input}
          class="unseen"
          type="file"
          tabIndex={-1}
          aria-label="A table to score"
          accept=".csv,.tsv,.tab,.txt,.ndjson,.jsonl,.json,.parquet,.arrow,.feather"
          onChange={(event) => {
            const field = event.currentTarget;
            void score(field.files?.[0]);
            field.value = ""; // allows choosing the same file again
          }}
        />
      </div>
      {error !== null && <Failure error={error} />}
      {scored && <ScoredRows scored={scored} />}
    </section>
  );
}

/** Sends the file as it is: the service reads it as it reads an upload. */
async function answered(version: ModelVersion, file: File): Promise<Scored> {
  const { type, name, isCompressed } = described(file);
  const path = `/api/v1/models/${encodeURIComponent(version.model)}/versions/${version.version}/predict`;
  const sent = { "Content-Type": type, Accept: "text/csv", ...(isCompressed && { "Content-Encoding": "gzip" }) };
  const content = await fetched(path, { method: "POST", body: file, headers: sent });
  const [header = [], ...rows] = parseCsv(await content.text());
  return { name: `${name}-predictions.csv`, content, header, rows: rows.slice(0, SHOWN), total: rows.length };
}

function ScoredRows({ scored }: { scored: Scored }) {
  return (
    <>
      <div class="row apart">
        <p>
          {counted(scored.total, "prediction")}
          {scored.total > SHOWN && <span class="quiet"> · first {count(SHOWN)} shown</span>}
        </p>
        <button type="button" class="primary" onClick={() => save(scored.content, scored.name)}>
          Download ({bytes(scored.content.size)})
        </button>
      </div>
      <Scroll label="Table of predictions">
        <table class="data">
          <thead>
            <tr>
              <th scope="col">Row</th>
              {scored.header.map((name) => (
                <th scope="col" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {scored.rows.map((row, place) => (
              <tr key={place}>
                <td class="quiet">{place + 1}</td>
                {row.map((value, column) => (
                  <td key={column}>{shortened(value)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

const DIGITS = 6;

function shortened(text: string): string {
  const value = Number(text);
  return text.length > DIGITS + 2 && Number.isFinite(value) ? String(Number(value.toPrecision(DIGITS))) : text;
}
