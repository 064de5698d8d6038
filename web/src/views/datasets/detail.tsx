/** One dataset: its name, its state, and its content once it is parsed. */

import { useState } from "preact/hooks";
import { call, type Dataset, deleteDataset, getDataset } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { DatasetState } from "../../components/state";
import { announce } from "../../news";
import { useInterval, useResource } from "../../resource";
import { go, href, hrefWith } from "../../router";
import { Correction } from "./correction";

export function DatasetDetail({ id }: { id: string }) {
  const dataset = useResource(
    (signal) => call(getDataset({ path: { dataset_id: id }, signal })),
    [id],
  );
  const { data } = dataset;
  const isParsing = data !== null && data.state !== "ready" && data.state !== "rejected";
  useInterval(dataset.reload, isParsing ? 1 : null);
  if (!data) {
    if (dataset.error !== null) return <Failure error={dataset.error} retry={dataset.reload} />;
    return <h1 class="quiet">Dataset</h1>;
  }
  return (
    <>
      <DatasetHead dataset={data} />
      {dataset.error !== null && <Failure error={dataset.error} retry={dataset.reload} />}
      {isParsing && (
        <p class="quiet" role="status">
          The service is parsing the file. This page updates when it is done.
        </p>
      )}
      {data.error && <Rejected dataset={data} />}
      {data.state === "ready" && <Correction dataset={data} onChange={dataset.set} key={data.version} />}
    </>
  );
}

function DatasetHead({ dataset }: { dataset: Dataset }) {
  const [error, setError] = useState<unknown>(null);

  async function remove(): Promise<void> {
    const text = "Runs that used it keep their metrics and models.";
    if (!(await confirmed(`Delete the dataset “${dataset.name}”?`, text, "Delete"))) return;
    try {
      await call(deleteDataset({ path: { dataset_id: dataset.id } }));
      announce(`Deleted ${dataset.name}.`);
      go(href("datasets"));
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <div class="row apart">
        <div>
          <p class="quiet">
            <a href={href("datasets")}>Datasets</a>
          </p>
          <h1>{dataset.name}</h1>
        </div>
        <div class="actions">
          {dataset.state === "ready" ? (
            <a class="button primary" href={hrefWith(["new"], { dataset: dataset.id })}>
              Train a model
            </a>
          ) : (
            <DatasetState state={dataset.state} />
          )}
          <button type="button" onClick={() => void remove()}>
            Delete
          </button>
        </div>
      </div>
      {error !== null && <Failure error={error} />}
    </>
  );
}

function Rejected({ dataset }: { dataset: Dataset }) {
  const problem = dataset.error;
  if (!problem) return null;
  return (
    <div class="notice failure" role="alert">
      <p>
        <strong>The file was rejected.</strong> {problem.detail}
      </p>
      <ul>
        {problem.errors?.map((item) => (
          <li key={item.detail}>
            {[item.row && `row ${item.row}`, item.line && `line ${item.line}`, item.column]
              .filter(Boolean)
              .join(", ")}
            {": "}
            {item.detail}
          </li>
        ))}
      </ul>
      <p class="quiet">
        <code>{problem.code}</code>
      </p>
      <a class="button" href={href("datasets")}>
        Upload another file
      </a>
    </div>
  );
}
