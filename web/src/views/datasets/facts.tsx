/** The size of a dataset, and how its file is read. */

import { useId } from "preact/hooks";
import type { Dataset, FileOverride } from "../../api";
import { bytes, count, time } from "../../format";
import type { Draft } from "./draft";
import { FileFields } from "./file-fields";
import { fieldsOf, fileReasons, fileWords } from "./reading";

interface Props {
  dataset: Dataset;
  draft: Draft;
  onFile: (fields: FileOverride) => void;
}

export function Facts({ dataset, draft, onFile }: Props) {
  const facts = {
    Rows: count(dataset.rows),
    Columns: count(dataset.columns?.length),
    Size: bytes(dataset.bytes),
    Version: String(dataset.version),
    Uploaded: time(dataset.created_at),
  };
  return (
    <div class="card">
      <dl class="facts">
        {Object.entries(facts).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <Reading dataset={dataset} draft={draft} onFile={onFile} />
    </div>
  );
}

function Reading({ dataset, draft, onFile }: Props) {
  const label = useId();
  const reading = dataset.reading ?? null;
  const names = fieldsOf(reading);
  const words = reading ? fileWords(reading) : [];
  const reasons = reading ? fileReasons(reading) : [];
  if (names.length === 0 && words.length === 0) return null;
  return (
    <section class="read-as" aria-labelledby={label}>
      <h2 class="unseen" id={label}>
        How the file is read
      </h2>
      <p>
        <span class="quiet">Read as </span>
        {reading ? words.join(" · ") : "an earlier release read files; it did not note how"}
      </p>
      {reasons.length > 0 && <p class="quiet small">{reasons.join(" ")}</p>}
      {names.length > 0 && (
        <details>
          <summary class="small">Read the file in another way</summary>
          <FileFields names={names} place="/reading" reading={reading} fields={draft.file} onFields={onFile} />
        </details>
      )}
    </section>
  );
}
