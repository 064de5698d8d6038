/** The data of a run: dataset, target, features and task. */

import type { Dataset } from "../../api";
import { count, counted } from "../../format";
import { Labelled } from "../../components/labelled";
import { type Draft, field, valueOf, withValue } from "./draft";
import { Field } from "./fields";

interface Props {
  datasets: Dataset[];
  dataset: Dataset;
  draft: Draft;
  onDraft: (draft: Draft) => void;
  onDataset: (id: string) => void;
}

export function DataFields({ datasets, dataset, draft, onDraft, onDataset }: Props) {
  const columns = dataset.columns ?? [];
  const target = Array.isArray(draft.target) ? draft.target[0] : draft.target;
  return (
    <section class="card" aria-labelledby="data">
      <h2 id="data">Data</h2>
      <div class="columns">
        <Labelled
          text="Dataset"
          pointer="/dataset"
          hint={`${counted(dataset.rows ?? 0, "row")}, ${counted(columns.length, "column")}`}
        >
          {(id, attributes) => (
            <select
              id={id}
              {...attributes}
              value={dataset.id}
              onChange={(event) => onDataset(event.currentTarget.value)}
            >
              {datasets.map((each) => (
                <option key={each.id} value={each.id}>
                  {each.name}
                </option>
              ))}
            </select>
          )}
        </Labelled>
        <Labelled text="Target" pointer="/target" hint={hintOf(dataset, target)}>
          {(id, attributes) => (
            <select
              id={id}
              {...attributes}
              value={target}
              onChange={(event) => onDraft(withTarget(draft, event.currentTarget.value))}
            >
              {columns.map((column) => (
                <option key={column.name} value={column.name}>
                  {column.name}
                </option>
              ))}
            </select>
          )}
        </Labelled>
      </div>
      <Features dataset={dataset} draft={draft} onDraft={onDraft} />
      <details>
        <summary>Task</summary>
        <Field
          name="task"
          schema={field("task")}
          value={valueOf(draft, "task")}
          pointer="/task"
          hint="auto: regression for numbers; classification for categories, text and booleans"
          onValue={(value) => onDraft(withValue(draft, "task", value))}
        />
      </details>
    </section>
  );
}

/** Changes the target and removes it from the features. */
function withTarget(draft: Draft, target: string): Draft {
  const features = draft.rest["features"];
  const next = { ...draft, target };
  if (!Array.isArray(features)) return next;
  const left = features.filter((name) => name !== target);
  return withValue(next, "features", left.length > 0 ? left : null);
}

function hintOf(dataset: Dataset, target: string | undefined): string {
  const column = dataset.columns?.find((each) => each.name === target);
  return column ? `${column.type}, ${counted(column.distinct, "distinct value")}` : "";
}

function Features({ dataset, draft, onDraft }: Pick<Props, "dataset" | "draft" | "onDraft">) {
  const targets = new Set([draft.target].flat());
  const columns = (dataset.columns ?? []).filter((column) => !targets.has(column.name));
  const given = draft.rest["features"];
  const byDefault = defaults(dataset, targets);
  const chosen = new Set(Array.isArray(given) ? given.map(String) : byDefault);

  function toggle(name: string, isOn: boolean): void {
    const next = columns.filter((each) => (each.name === name ? isOn : chosen.has(each.name)));
    const names = next.map((each) => each.name);
    const isDefault = names.join("\n") === byDefault.join("\n");
    onDraft(withValue(draft, "features", isDefault ? null : names));
  }

  return (
    <details>
      <summary>
        Features: {count(chosen.size)} of {counted(columns.length, "column")}
      </summary>
      <fieldset>
        <legend class="unseen">Features</legend>
        <div class="checks">
          {columns.map((column) => (
            <label class="check" key={column.name}>
              <input
                type="checkbox"
                checked={chosen.has(column.name)}
                onChange={(event) => toggle(column.name, event.currentTarget.checked)}
              />
              <span>
                {column.name} <small class="quiet">{column.type}</small>
              </span>
            </label>
          ))}
        </div>
      </fieldset>
    </details>
  );
}

/** The default features of the service: all columns except IDs and free text, if there are others. */
function defaults(dataset: Dataset, targets: Set<string>): string[] {
  const others = (dataset.columns ?? []).filter((column) => !targets.has(column.name));
  const features = others.filter((column) => column.role === "feature");
  return (features.length > 0 ? features : others).map((column) => column.name);
}

