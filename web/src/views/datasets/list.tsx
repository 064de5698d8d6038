/** All datasets, and the drop zone for another one. The list does not refresh by itself. */

import { call, type Dataset, listDatasets, type PageDataset } from "../../api";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { Scroll } from "../../components/scroll";
import { DatasetState } from "../../components/state";
import { bytes, count, time } from "../../format";
import { href, hrefWith } from "../../router";
import { DropZone } from "./drop";

export function DatasetList() {
  const list = useList<Dataset>((after, signal) => page(after, signal), []);
  const isEmpty = list.items?.length === 0;
  return (
    <>
      <h1>Datasets</h1>
      <DropZone hasNone={isEmpty} />
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {isEmpty && (
        <p class="quiet">
          No datasets yet. Upload a table whose first row holds the column names, or try the example.
        </p>
      )}
      {list.items && list.items.length > 0 && (
        <section class="card" aria-label="All datasets">
          <Scroll label="Table of datasets">
            <table>
              <thead>
                <tr>
                  <th scope="col">Name</th>
                  <th scope="col" class="right">
                    Rows
                  </th>
                  <th scope="col" class="right">
                    Columns
                  </th>
                  <th scope="col" class="right">
                    Size
                  </th>
                  <th scope="col">Uploaded</th>
                  <th scope="col">
                    <span class="unseen">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {list.items.map((dataset) => (
                  <DatasetRow dataset={dataset} key={dataset.id} />
                ))}
              </tbody>
            </table>
          </Scroll>
          <More list={list} />
        </section>
      )}
    </>
  );
}

function DatasetRow({ dataset }: { dataset: Dataset }) {
  return (
    <tr>
      <th scope="row">
        <a href={href("datasets", dataset.id)}>{dataset.name}</a>
      </th>
      <td class="right">{count(dataset.rows)}</td>
      <td class="right">{count(dataset.columns?.length)}</td>
      <td class="right nowrap">{bytes(dataset.bytes)}</td>
      <td class="quiet nowrap">{time(dataset.created_at)}</td>
      <td class="right nowrap">
        {dataset.state === "ready" ? (
          <a href={hrefWith(["new"], { dataset: dataset.id })} aria-label={`Train on ${dataset.name}`}>
            Train
          </a>
        ) : (
          <DatasetState state={dataset.state} />
        )}
      </td>
    </tr>
  );
}

function page(after: string | null, signal: AbortSignal): Promise<PageDataset> {
  return call(listDatasets({ query: { limit: 50, after }, signal }));
}
