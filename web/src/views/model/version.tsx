/** One version: its metrics, export check, signature and downloads, and a form to predict. */

import { useState } from "preact/hooks";
import { call, deleteModelVersion, type ModelVersion } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { bytes, count, duration, number, percent } from "../../format";
import { rowsOf } from "../../metrics";
import { href } from "../../router";
import { ModelCard } from "./card";
import { Downloads } from "./downloads";
import { metricsOf, splitOf } from "./metrics";
import { Predict } from "./predict";
import { Score } from "./score";
import { SignatureTable } from "./signature";
import { ExportCheckTag } from "./versions";

export function VersionDetail({ version, onDeleted }: { version: ModelVersion; onDeleted: () => void }) {
  return (
    <>
      <div class="row apart">
        <h2>Version {version.version}</h2>
        <DeleteVersion version={version} onDeleted={onDeleted} />
      </div>
      {version.proof_error && (
        <div class="notice failure" role="alert">
          <p>{String(version.proof_error["detail"] ?? "The export check failed.")}</p>
        </div>
      )}
      <Predict version={version} />
      <VersionFacts version={version} />
      <Score version={version} />
      <div class="halves">
        <SignatureTable version={version} />
        <div class="stack">
          <ExportCheck version={version} />
          {version.importance && <VersionImportance version={version} />}
        </div>
      </div>
      <Downloads version={version} />
      <ModelCard version={version} />
    </>
  );
}

function DeleteVersion({ version, onDeleted }: { version: ModelVersion; onDeleted: () => void }) {
  const [error, setError] = useState<unknown>(null);

  async function remove(): Promise<void> {
    const title = `Delete version ${version.version} of “${version.model}”?`;
    if (!(await confirmed(title, "The other versions stay.", "Delete"))) return;
    try {
      await call(deleteModelVersion({ path: { name: version.model, version: version.version } }));
      onDeleted();
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <div class="stack">
      <button type="button" class="small" onClick={() => void remove()}>
        Delete this version
      </button>
      {error !== null && <Failure error={error} />}
    </div>
  );
}

function VersionFacts({ version }: { version: ModelVersion }) {
  const split = splitOf(version);
  const model = version.config["model"] as { type?: string; hidden?: number[] } | undefined;
  return (
    <dl class="facts card">
      {metricsOf(version)
        .slice(0, 3)
        .map(([name, value]) => (
          <div key={name}>
            <dt>
              {name} ({split})
            </dt>
            <dd>{number(value)}</dd>
          </div>
        ))}
      <div>
        <dt>Architecture</dt>
        <dd>{[model?.type, model?.hidden?.join("–")].filter(Boolean).join(" ") || "–"}</dd>
      </div>
      <div>
        <dt>Size</dt>
        <dd>{bytes(version.bytes)}</dd>
      </div>
      {version.run_id && (
        <div>
          <dt>Run</dt>
          <dd>
            <a href={href("runs", version.run_id)}>details</a>
            {" · "}
            <a href={href("understand", version.run_id)}>replay</a>
          </dd>
        </div>
      )}
      {version.dataset && (
        <div>
          <dt>Dataset</dt>
          <dd>
            <a href={href("datasets", version.dataset.id)}>version {version.dataset.version}</a>
          </dd>
        </div>
      )}
      {version.imported && (
        <div>
          <dt>Imported from</dt>
          <dd>
            {version.imported.model} {version.imported.version}
          </dd>
        </div>
      )}
    </dl>
  );
}

const FORMATS: Record<string, string> = {
  json: "JSON",
  json_row: "JSON, one row per request",
  csv: "CSV",
  arrow: "Arrow",
  oip: "Open Inference Protocol, JSON",
  oip_binary: "Open Inference Protocol, binary",
  onnx: "ONNX",
  bundle: "Bundle",
  csv_as_uploaded: "CSV, spelled as uploaded",
  json_as_uploaded: "JSON, spelled as uploaded",
  oip_as_uploaded: "Open Inference Protocol, spelled as uploaded",
  script_as_uploaded: "Exported script, spelled as uploaded",
};

function ExportCheck({ version }: { version: ModelVersion }) {
  const details = version.proof_details;
  return (
    <section class="card" aria-labelledby="export-check">
      <div class="row apart">
        <h3 id="export-check">Export check</h3>
        <ExportCheckTag version={version} />
      </div>
      {!details && (
        <p class="quiet">
          The service predicts sample rows with this version in every format. An alias can point to it once all
          predictions match those of the trained model.
        </p>
      )}
      {details && (
        <>
          <p class="quiet small">
            {count(details.rows)} {details.source.replace("_", "-")} rows predicted in{" "}
            {Object.keys(details.ways).length} formats in {duration(details.seconds)}. Differences up to{" "}
            {number(details.tolerance)} count as rounding.
          </p>
          <details>
            <summary>Largest difference by format</summary>
            <table>
              <tbody>
                {Object.entries(details.ways).map(([format, difference]) => (
                  <tr key={format}>
                    <th scope="row">{FORMATS[format] ?? format}</th>
                    <td class="right">{difference === null ? "no prediction" : number(difference)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </details>
        </>
      )}
    </section>
  );
}

const MOST_COLUMNS = 12;

function VersionImportance({ version }: { version: ModelVersion }) {
  const { importance } = version;
  if (!importance) return null;
  const columns = importance.columns.slice(0, MOST_COLUMNS);
  const most = Math.max(...columns.map((column) => column.mean), 1e-12);
  const change = importance.metric === "r2" ? "drop in R²" : "increase in cross-entropy";
  return (
    <section class="card" aria-labelledby="importance">
      <h3 id="importance">Feature importance</h3>
      <table class="bars">
        <caption>
          Permutation importance: {change} when a column is shuffled, on {count(importance.rows)}{" "}
          {rowsOf(importance.split)}
        </caption>
        <tbody>
          {columns.map((column) => (
            <tr key={column.column}>
              <th scope="row">{column.column}</th>
              <td class="wide">
                <Bar share={column.mean / most} />
              </td>
              <td class="right">{number(column.mean)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** A bar from 0 to 1; hidden from screen readers, because the number is beside it. */
export function Bar({ share, color = "--accent" }: { share: number; color?: string }) {
  const width = Math.max(0, Math.min(1, share));
  return (
    <span class="share" aria-hidden="true">
      <span style={{ width: percent(width).replace(" ", ""), background: `var(${color})` }} />
    </span>
  );
}
