/** The form to submit a run. Dataset and target are required; every other setting has a sensible default. */

import { useState } from "preact/hooks";
import { call, type Dataset, getDataset, getRun, listDatasets, type RunConfig, submitRun } from "../api";
import type { ViewProps } from "../app";
import { Failure } from "../components/failure";
import { FieldErrors, fieldErrors } from "../components/labelled";
import { announce } from "../news";
import { useResource } from "../resource";
import { go, href, hrefWith, replace } from "../router";
import { DataFields } from "./new-run/data";
import { type Draft, draftOf, firstDraft, modelName, request } from "./new-run/draft";
import { ColumnNames } from "./new-run/fields";
import { ModelFields } from "./new-run/model";
import { PlanPanel, usePlan } from "./new-run/plan";
import type { JsonObject } from "./new-run/schema";
import { TrainingFields } from "./new-run/training";
import { idempotencyKey } from "./datasets/upload";

export function NewRun({ route }: ViewProps) {
  const wanted = route.query.get("dataset");
  const from = route.query.get("from");
  const rate = route.query.get("rate");
  const start = useResource((signal) => load({ wanted, from, rate }, signal), [wanted, from, rate]);
  return (
    <>
      <h1>New run</h1>
      {start.error !== null && <Failure error={start.error} retry={start.reload} />}
      {start.data && start.data.datasets.length === 0 && <NoDataset />}
      {start.data?.dataset && (
        <Form
          key={`${start.data.dataset.id} ${from} ${rate}`}
          datasets={start.data.datasets}
          dataset={start.data.dataset}
          config={start.data.config}
        />
      )}
    </>
  );
}

interface Start {
  datasets: Dataset[];
  dataset: Dataset | null;
  /** configuration of the run to clone */
  config: JsonObject | null;
}

interface Asked {
  /** the dataset */
  wanted: string | null;
  /** the run to clone */
  from: string | null;
  /** the learning rate of the clone */
  rate: string | null;
}

async function load({ wanted, from, rate }: Asked, signal: AbortSignal): Promise<Start> {
  const run = from === null ? null : await call(getRun({ path: { run_id: from }, signal }));
  const page = await call(listDatasets({ query: { limit: 200 }, signal }));
  const datasets = page.data.filter((each) => each.state === "ready");
  const id = run?.dataset.id ?? wanted ?? datasets[0]?.id;
  const known = datasets.find((each) => each.id === id);
  const dataset = known ?? (id ? await call(getDataset({ path: { dataset_id: id }, signal })) : null);
  if (dataset && !known) datasets.unshift(dataset);
  const config = (run?.config as JsonObject | undefined) ?? null;
  const tested = config && dataset && rate !== null ? withRate(config, Number(rate), dataset) : null;
  return { datasets, dataset, config: tested ?? config };
}

/** Returns the training with a learning rate that a test suggests; the test itself registers no model. */
function withRate(config: JsonObject, rate: number, dataset: Dataset): JsonObject {
  const optimizer = config["optimizer"] as JsonObject;
  const register_as = config["register_as"] ?? modelName(dataset.name);
  return { ...config, register_as, optimizer: { ...optimizer, learning_rate: rate } };
}

function NoDataset() {
  return (
    <div class="empty">
      <p>A run needs a dataset, and there is none yet.</p>
      <a class="button primary" href={href("datasets")}>
        Upload a dataset
      </a>
    </div>
  );
}

interface FormProps {
  datasets: Dataset[];
  dataset: Dataset;
  config: JsonObject | null;
}

function Form({ datasets, dataset, config }: FormProps) {
  const [draft, setDraft] = useState<Draft>(() =>
    config ? draftOf(config, dataset) : firstDraft(dataset),
  );
  const [failure, setFailure] = useState<unknown>(null);
  const [isSending, setSending] = useState(false);
  const body = request(draft);
  const plan = usePlan(body);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setSending(true);
    try {
      go(href("runs", await started(body)));
    } catch (refused) {
      setFailure(refused);
      setSending(false);
    }
  }

  return (
    <FieldErrors.Provider value={fieldErrors(plan.error)}>
      <ColumnNames.Provider value={(dataset.columns ?? []).map((column) => column.name)}>
        <form class="with-aside" onSubmit={(event) => void submit(event)}>
          <div class="stack wide">
            <DataFields
              datasets={datasets}
              dataset={dataset}
              draft={draft}
              onDraft={setDraft}
              onDataset={(id) => replace(hrefWith(["new"], { dataset: id }))}
            />
            <ModelFields draft={draft} onDraft={setDraft} />
            <TrainingFields draft={draft} onDraft={setDraft} />
          </div>
          <PlanPanel body={body} plan={plan} dataset={dataset}>
            <button class="primary large" disabled={isSending}>
              {isSending ? "Starting…" : "Train"}
            </button>
            {failure !== null && <Failure error={failure} />}
          </PlanPanel>
        </form>
      </ColumnNames.Provider>
    </FieldErrors.Provider>
  );
}

async function started(body: RunConfig): Promise<string> {
  const run = await call(submitRun({ body, headers: { "Idempotency-Key": idempotencyKey() } }));
  announce("The run is queued.");
  return run.id;
}
