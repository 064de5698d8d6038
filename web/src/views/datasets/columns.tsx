/** The columns with the inferred type, its reason, and a way to change it. */

import { useState } from "preact/hooks";
import { call, type Column, type Dataset, retypeDataset } from "../../api";
import { ColumnPicture } from "../../components/charts/column";
import { Failure } from "../../components/failure";
import { count, counted, number } from "../../format";
import { announce } from "../../news";

type ColumnType = Column["type"];

const TYPES: ColumnType[] = ["number", "integer", "boolean", "category", "datetime", "text", "id"];
const FIRST = 60; // columns shown before "Show all"

interface Props {
  dataset: Dataset;
  onChange: (dataset: Dataset) => void;
}

export function Columns({ dataset, onChange }: Props) {
  const [wanted, setWanted] = useState<Record<string, ColumnType>>({});
  const [error, setError] = useState<unknown>(null);
  const [isAll, setAll] = useState(false);
  const columns = dataset.columns ?? [];
  const shown = isAll ? columns : columns.slice(0, FIRST);

  function want(column: Column, type: ColumnType): void {
    const { [column.name]: _before, ...others } = wanted;
    setWanted(type === column.type ? others : { ...others, [column.name]: type });
  }

  async function save(): Promise<void> {
    const entries = Object.entries(wanted).map(([name, type]) => [name, { type }]);
    try {
      const body = { columns: Object.fromEntries(entries) };
      onChange(await call(retypeDataset({ path: { dataset_id: dataset.id }, body })));
      announce("Created a dataset version with these types.");
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <section class="stack" aria-labelledby="columns">
      <h2 id="columns">Columns</h2>
      <div class="tiles">
        {shown.map((column) => (
          <ColumnTile
            key={column.name}
            column={column}
            rows={dataset.rows ?? 0}
            type={wanted[column.name] ?? column.type}
            onType={(type) => want(column, type)}
          />
        ))}
      </div>
      {!isAll && columns.length > FIRST && (
        <div class="actions">
          <button type="button" onClick={() => setAll(true)}>
            Show all {count(columns.length)} columns
          </button>
        </div>
      )}
      {error !== null && <Failure error={error} />}
      {Object.keys(wanted).length > 0 && (
        <div class="pending" role="group" aria-label="Changed types">
          <span>
            {counted(Object.keys(wanted).length, "type")} changed. Existing runs keep version {dataset.version}.
          </span>
          <div class="actions">
            <button type="button" class="primary" onClick={() => void save()}>
              Create version {dataset.version + 1}
            </button>
            <button type="button" onClick={() => setWanted({})}>
              Undo
            </button>
          </div>
        </div>
      )}
    </section>
  );
}

interface ColumnTileProps {
  column: Column;
  rows: number;
  type: ColumnType;
  onType: (type: ColumnType) => void;
}

function ColumnTile({ column, rows, type, onType }: ColumnTileProps) {
  const isChanged = type !== column.type;
  return (
    <article class="card tile" aria-label={column.name}>
      <div class="row apart">
        <h3 title={column.name}>{column.name}</h3>
        <select
          aria-label={`Type of ${column.name}`}
          class={isChanged ? "changed" : ""}
          value={type}
          onChange={(event) => onType(event.currentTarget.value as ColumnType)}
        >
          {TYPES.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </div>
      <ColumnPicture column={column} rows={rows} />
      <ColumnStatistics column={column} rows={rows} />
      <p class="quiet small">
        {column.role === "ignored" && <strong>Not a feature. </strong>}
        {sentence(column.why)}
      </p>
    </article>
  );
}

function ColumnStatistics({ column, rows }: { column: Column; rows: number }) {
  const parts = [`${count(column.distinct)} distinct`];
  if (column.mean !== null && column.mean !== undefined) {
    parts.push(`mean ${number(column.mean)}`, `std ${number(column.std)}`);
  }
  const share = column.missing / Math.max(rows, 1);
  return (
    <p class="small">
      {parts.join(" · ")}
      {column.missing > 0 && (
        <strong class="missing">
          {" "}
          · {count(column.missing)} missing{share >= 0.01 && ` (${Math.round(share * 100)} %)`}
        </strong>
      )}
    </p>
  );
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
