/** The columns with their type, its reason and how their cells are read, and a way to change these. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Column, ColumnOverride, Dataset } from "../../api";
import { ColumnPicture } from "../../components/charts/column";
import { AUTO } from "../../components/choice";
import { count, number, sentence } from "../../format";
import { ColumnFields } from "./column-fields";
import { type Draft, typeIn, withColumn, withType } from "./draft";
import { columnWords, missingOf } from "./reading";

type ColumnType = Column["type"];

const TYPES: ColumnType[] = ["number", "integer", "boolean", "category", "datetime", "text", "id"];
const FIRST = 60; // columns shown before "Show all"

interface Props {
  dataset: Dataset;
  draft: Draft;
  onDraft: (draft: Draft) => void;
  /** the column whose fields open */
  opened: { name: string } | null;
}

export function Columns({ dataset, draft, onDraft, opened }: Props) {
  const [isAll, setAll] = useState(false);
  const columns = dataset.columns ?? [];
  const isFar = columns.findIndex((column) => column.name === opened?.name) >= FIRST;
  const shown = isAll || isFar ? columns : columns.slice(0, FIRST);
  return (
    <section class="stack" aria-labelledby="columns">
      <h2 id="columns">Columns</h2>
      <div class="tiles">
        {shown.map((column) => (
          <ColumnTile
            key={column.name}
            column={column}
            rows={dataset.rows ?? 0}
            missing={missingOf(dataset.reading)}
            draft={draft}
            onDraft={onDraft}
            opened={opened?.name === column.name ? opened : null}
          />
        ))}
      </div>
      {shown.length < columns.length && (
        <div class="actions">
          <button type="button" onClick={() => setAll(true)}>
            Show all {count(columns.length)} columns
          </button>
        </div>
      )}
    </section>
  );
}

interface ColumnTileProps {
  column: Column;
  rows: number;
  /** the texts that mean missing in the whole table */
  missing: readonly string[];
  draft: Draft;
  onDraft: (draft: Draft) => void;
  opened: object | null;
}

function ColumnTile({ column, rows, missing, draft, onDraft, opened }: ColumnTileProps) {
  const words = column.reading ? columnWords(column.reading, missing) : [];
  return (
    <article class="card tile" aria-label={column.name}>
      <div class="row apart">
        <h3 title={column.name}>{column.name}</h3>
        <TypeField column={column} draft={draft} onDraft={onDraft} />
      </div>
      <ColumnPicture column={column} rows={rows} />
      <ColumnStatistics column={column} rows={rows} />
      {words.length > 0 && <p class="small">{words.join(" · ")}</p>}
      <p class="quiet small">
        {column.role === "ignored" && <strong>Not a feature. </strong>}
        {sentence(column.why)}
      </p>
      <ColumnReading
        column={column}
        type={typeIn(draft, column)}
        missing={missing}
        fields={draft.columns[column.name] ?? {}}
        onFields={(fields) => onDraft(withColumn(draft, column.name, fields))}
        opened={opened}
      />
    </article>
  );
}

function TypeField({ column, draft, onDraft }: { column: Column; draft: Draft; onDraft: (draft: Draft) => void }) {
  const drafted = draft.columns[column.name]?.type;
  return (
    <select
      aria-label={`Type of ${column.name}`}
      class={drafted === undefined ? "" : "changed"}
      value={drafted === null ? AUTO : (drafted ?? column.type)}
      onChange={(event) => {
        const { value } = event.currentTarget;
        onDraft(withType(draft, column, value === AUTO ? null : (value as ColumnType)));
      }}
    >
      {TYPES.map((each) => (
        <option key={each} value={each}>
          {each}
        </option>
      ))}
      <option value={AUTO}>automatic</option>
    </select>
  );
}

interface ColumnReadingProps {
  column: Column;
  type: ColumnType;
  missing: readonly string[];
  fields: ColumnOverride;
  onFields: (fields: ColumnOverride) => void;
  opened: object | null;
}

function ColumnReading({ opened, ...fields }: ColumnReadingProps) {
  const place = useRef<HTMLDetailsElement>(null);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    if (opened) setOpen(true);
  }, [opened]);
  useEffect(() => {
    if (!opened || !isOpen) return;
    place.current?.querySelector<HTMLElement>("select, input")?.focus({ preventScroll: true });
    place.current?.closest("article")?.scrollIntoView({ block: "center" });
  }, [opened, isOpen]);
  return (
    <details ref={place} open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary class="small">
        Read in another way<span class="unseen">: {fields.column.name}</span>
      </summary>
      {isOpen && <ColumnFields {...fields} />}
    </details>
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
