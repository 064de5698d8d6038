/** All runs, newest first, with a selection to compare. */

import { useState } from "preact/hooks";
import { call, listRuns, type Run } from "../../api";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { ProgressBar } from "../../components/progress";
import { Scroll } from "../../components/scroll";
import { RunState } from "../../components/state";
import { duration, number, time } from "../../format";
import { useInterval } from "../../resource";
import { go, href, hrefWith } from "../../router";
import { RATES_OF } from "../understand/words";
import { hasEnded } from "./live";
import { titleOf } from "./title";

const PAGE = 50; // runs
const MOST = 8; // runs in one comparison, one colour each

export function RunList() {
  const list = useList<Run>(
    (after, signal) => call(listRuns({ query: { limit: PAGE, after }, signal })),
    [],
  );
  const [chosen, setChosen] = useState<string[]>([]);
  // Refreshes only while a run is active, and not once older pages are loaded.
  const isLive = (list.items ?? []).some((run) => !hasEnded(run)) && (list.items ?? []).length <= PAGE;
  useInterval(list.reload, isLive ? 2 : null);
  const toggle = (id: string) =>
    setChosen((old) => (old.includes(id) ? old.filter((each) => each !== id) : [...old, id]));
  return (
    <>
      <div class="row apart">
        <h1>Runs</h1>
        <div class="actions">
          <button
            type="button"
            disabled={chosen.length < 2 || chosen.length > MOST}
            onClick={() => go(hrefWith(["runs"], { compare: chosen.join(",") }))}
          >
            Compare {chosen.length > 0 ? chosen.length : ""}
          </button>
          <a class="button" href={href("sweeps")}>
            Sweeps
          </a>
          <a class="button primary" href={href("new")}>
            New run
          </a>
        </div>
      </div>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && (
        <div class="empty">
          <p>No runs yet. Choose a dataset and a target; every other setting has a default.</p>
          <a class="button primary" href={href("new")}>
            Start a run
          </a>
        </div>
      )}
      {list.items && list.items.length > 0 && (
        <section class="card" aria-label="All runs">
          <Scroll label="Table of runs">
            <table>
              <thead>
                <tr>
                  <th scope="col">
                    <span class="unseen">Compare</span>
                  </th>
                  <th scope="col">Run</th>
                  <th scope="col">Model</th>
                  <th scope="col">State</th>
                  <th scope="col" class="right">
                    Best loss
                  </th>
                  <th scope="col" class="right">
                    Training time
                  </th>
                  <th scope="col">Submitted</th>
                </tr>
              </thead>
              <tbody>
                {list.items.map((run) => (
                  <RunRow key={run.id} run={run} isChosen={chosen.includes(run.id)} onToggle={toggle} />
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

/** Marks a member of a sweep, and links to the sweep. */
function SweepNote({ run }: { run: Run }) {
  if (!run.sweep) return null;
  return (
    <small class="quiet trial">
      trial {run.sweep.trial} · <a href={href("sweeps", run.sweep.id)}>sweep</a>
    </small>
  );
}

/** Marks a run of a learning rate comparison and links to the comparison. */
function RateNote({ run }: { run: Run }) {
  const of = run.tags?.[RATES_OF];
  if (of === undefined) return null;
  return (
    <small class="quiet trial">
      learning rate {run.tags?.["rate"]} · <a href={href("understand", of)}>comparison</a>
    </small>
  );
}

interface RunRowProps {
  run: Run;
  isChosen: boolean;
  onToggle: (id: string) => void;
}

function RunRow({ run, isChosen, onToggle }: RunRowProps) {
  const title = titleOf(run);
  const model = run.config["model"] as { type?: string } | undefined;
  return (
    <tr>
      <td>
        <input
          type="checkbox"
          aria-label={`Compare ${title}`}
          checked={isChosen}
          onChange={() => onToggle(run.id)}
        />
      </td>
      <th scope="row">
        <a href={href("runs", run.id)}>{title}</a>
        <RateNote run={run} />
        <SweepNote run={run} />
      </th>
      <td>{model?.type}</td>
      <td>
        {run.state === "running" && run.progress ? (
          <ProgressBar label={`Progress of ${title}`} share={run.progress.fraction} />
        ) : (
          <RunState run={run} />
        )}
      </td>
      <td class="right nowrap">{run.best ? number(run.best.value) : "–"}</td>
      <td class="right nowrap">{duration(run.timings?.training_s)}</td>
      <td class="quiet nowrap">{time(run.created_at)}</td>
    </tr>
  );
}
