/** The dataset as it is read, and the way to another reading: change fields, preview, create a version. */

import { useState } from "preact/hooks";
import { call, type Dataset, type DatasetPreview, listDatasetRows, previewDataset, problemOf, retypeDataset } from "../../api";
import { Notices } from "../../components/failure";
import { FieldErrors, fieldErrors } from "../../components/labelled";
import { announce } from "../../news";
import { Columns } from "./columns";
import { changes, type Draft, EMPTY, isEmpty, patchOf, type Remedy, remedyOf, withColumn, withFile, withoutRequest } from "./draft";
import { Facts } from "./facts";
import { Preview, shownColumns } from "./preview";
import { Rows, type Row } from "./rows";

interface Props {
  dataset: Dataset;
  onChange: (dataset: Dataset) => void;
}

/** The first rows as the draft would give them, and as they are. */
interface Previewed {
  after: DatasetPreview;
  before: Row[];
}

export function Correction({ dataset, onChange }: Props) {
  const columns = dataset.columns ?? [];
  const [draft, setDraft] = useState<Draft>(EMPTY);
  const [previewed, setPreviewed] = useState<Previewed | null>(null);
  const [error, setError] = useState<unknown>(null);
  /** the column whose fields a warning opened last */
  const [opened, setOpened] = useState<{ name: string } | null>(null);

  function change(next: Draft): void {
    setDraft(next);
    setPreviewed(null);
    setError(null);
  }

  function remedy({ column, fields }: Remedy): void {
    change(withColumn(draft, column, fields));
    setOpened({ name: column });
    announce(`The change of ${column} is filled in. Preview it to see its first rows.`);
  }

  return (
    <FieldErrors.Provider value={fieldErrors(error)}>
      <Facts dataset={dataset} draft={draft} onFile={(fields) => change(withFile(draft, fields))} />
      <Notices
        notices={(dataset.warnings ?? []).map((notice) => (remedyOf(notice, columns) ? withoutRequest(notice) : notice))}
        action={(notice) => {
          const found = remedyOf(notice, columns);
          return found && <RemedyButton remedy={found} onRemedy={remedy} />;
        }}
      />
      <Columns dataset={dataset} draft={draft} onDraft={change} opened={opened} />
      {previewed ? (
        <Preview dataset={dataset} draft={draft} after={previewed.after} before={previewed.before} />
      ) : (
        <Rows dataset={dataset} />
      )}
      {!isEmpty(draft) && (
        <Pending
          {...{ dataset, draft, error }}
          isPreviewed={previewed !== null}
          onError={setError}
          onPreview={setPreviewed}
          onUndo={() => change(EMPTY)}
          onCreated={onChange}
        />
      )}
    </FieldErrors.Provider>
  );
}

function RemedyButton({ remedy, onRemedy }: { remedy: Remedy; onRemedy: (remedy: Remedy) => void }) {
  return (
    <button type="button" class="small" onClick={() => onRemedy(remedy)}>
      {remedy.label}
      <span class="unseen"> in {remedy.column}</span>
    </button>
  );
}

interface PendingProps {
  dataset: Dataset;
  draft: Draft;
  error: unknown;
  isPreviewed: boolean;
  onError: (error: unknown) => void;
  onPreview: (previewed: Previewed) => void;
  onUndo: () => void;
  onCreated: (dataset: Dataset) => void;
}

function Pending({ dataset, draft, error, isPreviewed, onError, onPreview, onUndo, onCreated }: PendingProps) {
  const [isBusy, setBusy] = useState(false);
  // A file of some formats is too large for a preview; the change is possible nevertheless.
  const isReady = isPreviewed || (error !== null && problemOf(error).code === "too_large");

  async function attempt(act: () => Promise<void>): Promise<void> {
    setBusy(true);
    onError(null);
    try {
      await act();
    } catch (refused) {
      onError(refused);
    } finally {
      setBusy(false);
    }
  }

  async function preview(): Promise<void> {
    onPreview(await previewOf(dataset, draft));
    announce("The preview shows the first rows before and after.");
  }

  async function create(): Promise<void> {
    const body = patchOf(draft, dataset.columns ?? []);
    const next = await call(retypeDataset({ path: { dataset_id: dataset.id }, body }));
    const isSame = next.version === dataset.version;
    announce(isSame ? "The file is read like this already." : `Created version ${next.version} of the dataset.`);
    document.getElementById("main")?.focus({ preventScroll: true });
    onUndo();
    onCreated(next);
  }

  return (
    <div class="pending" role="group" aria-label="Changes">
      <span>
        Another reading of {changes(draft)}. <span class="quiet">Existing runs keep version {dataset.version}.</span>
        {Object.keys(draft.file).length > 0 && (
          <span class="quiet"> A change of the file drops earlier changes of columns.</span>
        )}
      </span>
      <div class="actions">
        {isReady ? (
          <button type="button" class="primary" disabled={isBusy} onClick={() => void attempt(create)}>
            {isBusy ? "Creating…" : `Create version ${dataset.version + 1}`}
          </button>
        ) : (
          <button type="button" class="primary" disabled={isBusy} onClick={() => void attempt(preview)}>
            {isBusy ? "Reading…" : "Preview"}
          </button>
        )}
        <button type="button" onClick={onUndo}>
          Undo
        </button>
      </div>
      {error !== null && (
        <p class="notice failure" role="alert">
          {problemOf(error).detail}
        </p>
      )}
    </div>
  );
}

async function previewOf(dataset: Dataset, draft: Draft): Promise<Previewed> {
  const path = { dataset_id: dataset.id };
  const columns = dataset.columns ?? [];
  const after = await call(previewDataset({ path, body: patchOf(draft, columns) }));
  const known = new Set(columns.map((column) => column.name));
  const names = shownColumns(after, draft).map((column) => column.name).filter((name) => known.has(name));
  if (names.length === 0) return { after, before: [] };
  const query = { limit: Math.max(after.rows.length, 1), columns: names };
  return { after, before: (await call(listDatasetRows({ path, query }))).data };
}
