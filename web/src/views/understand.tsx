/** Visualizes the training of a run: its predictions epoch by epoch, also while it is still training. */

import { call, listRuns, type Run } from "../api";
import type { ViewProps } from "../app";
import { Failure } from "../components/failure";
import { More, useList } from "../components/more";
import { RunState } from "../components/state";
import { time } from "../format";
import { href } from "../router";
import "../styles/lessons.css";
import { Lesson } from "./understand/lesson";
import { describeModel, nameOf, RATES_OF } from "./understand/words";

export function Understand({ route }: ViewProps) {
  const id = route.path[1];
  return id === undefined ? <RunChooser /> : <Lesson id={id} />;
}

function RunChooser() {
  const list = useList(
    (after, signal) => call(listRuns({ query: { limit: 20, after }, signal })),
    [],
  );
  return (
    <>
      <div class="stack">
        <h1>Understand</h1>
        <p class="quiet">
          Choose a run to replay its training: the fitted curve or decision boundary, the loss surface with the path of
          gradient descent, and the weights and activations of each layer.
        </p>
      </div>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && (
        <div class="empty">
          <p>No runs yet. Runs with one or two numeric features are the easiest to visualize.</p>
          <a class="button primary" href={href("new")}>
            Start a run
          </a>
        </div>
      )}
      <ul class="tiles plain-list">
        {list.items?.filter(isStandalone).map((run) => (
          <li key={run.id}>
            <RunTile run={run} />
          </li>
        ))}
      </ul>
      <More list={list} />
    </>
  );
}

/** Excludes the runs of a learning rate comparison: the view of the original run shows them. */
function isStandalone(run: Run): boolean {
  return !(RATES_OF in (run.tags ?? {}));
}

function RunTile({ run }: { run: Run }) {
  return (
    <a class="card tile link" href={href("understand", run.id)}>
      <strong class="cut">{nameOf(run)}</strong>
      <span class="quiet small">{describeModel(run)}</span>
      <span class="row apart last">
        <RunState run={run} />
        <span class="quiet small">{time(run.created_at)}</span>
      </span>
    </a>
  );
}
