/** The first rows as parsed, and more on demand. */

import { call, type Dataset, listDatasetRows } from "../../api";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { Scroll } from "../../components/scroll";
import { cell, count, moment } from "../../format";

export type Row = Record<string, unknown>;

const PAGE = 20; // rows
export const MOST_COLUMNS = 30; // columns shown

export function Rows({ dataset }: { dataset: Dataset }) {
  const columns = (dataset.columns ?? []).slice(0, MOST_COLUMNS);
  const left = (dataset.columns?.length ?? 0) - columns.length;
  const names = columns.map((column) => column.name);
  const list = useList(
    (after, signal) =>
      call(
        listDatasetRows({
          path: { dataset_id: dataset.id },
          query: { limit: PAGE, after, columns: names },
          signal,
        }),
      ),
    [dataset.id, dataset.version],
  );
  return (
    <section class="stack" aria-labelledby="rows">
      <h2 id="rows">First rows</h2>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      <div class="card">
        <Scroll label="Table of the first rows">
          <table class="data">
            <thead>
              <tr>
                <th scope="col">Row</th>
                {columns.map((column) => (
                  <th scope="col" key={column.name} class={isNumber(column.type) ? "right" : ""}>
                    {column.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {list.items?.map((row, place) => (
                <tr key={place}>
                  <td class="quiet">{place + 1}</td>
                  {columns.map((column) => (
                    <td key={column.name} class={isNumber(column.type) ? "right" : ""}>
                      {shown(row[column.name], column.type) || <span class="quiet">missing</span>}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
        {left > 0 && <p class="quiet">{count(left)} more columns are not shown.</p>}
        <More list={list} />
      </div>
    </section>
  );
}

/** Returns the text of a cell; it is empty if the cell is missing. */
export function shown(value: unknown, type: string): string {
  return type === "datetime" && typeof value === "string" ? moment(value) : cell(value);
}

export function isNumber(type: string | undefined): boolean {
  return type === "number" || type === "integer";
}
