/** The first rows as another reading would give them; a changed cell shows its old value too. */

import { useEffect, useRef } from "preact/hooks";
import type { Column, Dataset, DatasetPreview } from "../../api";
import { Notices } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { count, counted } from "../../format";
import type { Draft } from "./draft";
import { columnWords, fileWords, missingOf } from "./reading";
import { isNumber, MOST_COLUMNS, type Row, shown } from "./rows";

interface Props {
  dataset: Dataset;
  draft: Draft;
  after: DatasetPreview;
  before: Row[];
}

export function Preview({ dataset, draft, after, before }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    heading.current?.scrollIntoView({ block: "start" });
  }, [after]);
  const columns = shownColumns(after, draft);
  const olds = new Map((dataset.columns ?? []).map((column) => [column.name, column]));
  const left = after.columns.length - columns.length;
  const gone = (dataset.columns ?? []).filter(({ name }) => !after.columns.some((column) => column.name === name));
  const cells = after.rows.map((row, place) =>
    columns.map((column) => compared(column, olds.get(column.name), row, before[place])),
  );
  const changed = cells.flat().filter((cell) => cell.isChanged).length;
  const warnings = after.warnings.filter((warning) => isNews(warning, dataset, draft));
  return (
    <section class="stack" aria-labelledby="preview">
      <h2 id="preview" tabIndex={-1} ref={heading}>
        First rows of version {dataset.version + 1}
      </h2>
      <p class="quiet small">
        {changed > 0 ? `${counted(changed, "cell")} of these rows would change.` : "No cell of these rows would change."}{" "}
        {fileChange(dataset, after)}
        {gone.length > 0 && `Columns that would go: ${gone.slice(0, 10).map((column) => column.name).join(", ")}. `}
        The types are those of the first rows; the new version looks at all of them.
      </p>
      <Notices notices={warnings} />
      <div class="card">
        <Scroll label="Table of the first rows after the change">
          <table class="data compared">
            <thead>
              <tr>
                <th scope="col">Row</th>
                {columns.map((column) => (
                  <ColumnHead key={column.name} column={column} old={olds.get(column.name)} after={after} />
                ))}
              </tr>
            </thead>
            <tbody>
              {cells.map((row, place) => (
                <tr key={place}>
                  <td class="quiet">{place + 1}</td>
                  {row.map((cell, index) => (
                    <ComparedCell key={columns[index]?.name} cell={cell} isRight={isNumber(columns[index]?.type)} />
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
        {left > 0 && <p class="quiet">{count(left)} more columns are not shown.</p>}
      </div>
    </section>
  );
}

function ColumnHead({ column, old, after }: { column: Column; old: Column | undefined; after: DatasetPreview }) {
  const isRetyped = old !== undefined && old.type !== column.type;
  const words = column.reading ? columnWords(column.reading, missingOf(after.reading)) : [];
  return (
    <th scope="col" class={isNumber(column.type) ? "right" : ""}>
      {column.name}
      <span class={isRetyped || !old ? "type news" : "type"}>
        {isRetyped && <del>{old.type}</del>} {column.type}
        {!old && " (new)"}
      </span>
      {words.length > 0 && <span class="type">{words.join(", ")}</span>}
    </th>
  );
}

interface Compared {
  now: string;
  was: string;
  isChanged: boolean;
}

function compared(column: Column, old: Column | undefined, row: Row, before: Row | undefined): Compared {
  const now = shown(row[column.name], column.type);
  const was = old && before ? shown(before[column.name], old.type) : "";
  return { now, was, isChanged: old !== undefined && before !== undefined && now !== was };
}

function ComparedCell({ cell, isRight }: { cell: Compared; isRight: boolean }) {
  const now = cell.now || <span class="quiet">missing</span>;
  const classes = [cell.isChanged && "news", isRight && "right"].filter(Boolean).join(" ");
  if (!cell.isChanged) return <td class={classes}>{now}</td>;
  return (
    <td class={classes} title={`before: ${cell.was || "missing"}`}>
      <del>{cell.was || "missing"}</del> <ins>{now}</ins>
    </td>
  );
}

/** Returns the columns that the preview shows: the first ones, and those that were changed. */
export function shownColumns(after: DatasetPreview, draft: Draft): Column[] {
  if (after.columns.length <= MOST_COLUMNS) return after.columns;
  const changed = after.columns.filter((column) => column.name in draft.columns);
  const others = after.columns.filter((column) => !(column.name in draft.columns));
  return [...changed, ...others].slice(0, MOST_COLUMNS);
}

function fileChange(dataset: Dataset, after: DatasetPreview): string {
  if (!after.reading) return "";
  const now = fileWords(after.reading).join(" · ");
  return dataset.reading && fileWords(dataset.reading).join(" · ") === now ? "" : `Read as ${now}. `;
}

/** Returns whether a warning is about a change: the others are those of the present version. */
function isNews(warning: DatasetPreview["warnings"][number], dataset: Dataset, draft: Draft): boolean {
  if (warning.column && warning.column in draft.columns) return true;
  const known = dataset.warnings ?? [];
  return !known.some(({ code, column }) => code === warning.code && column === warning.column);
}
