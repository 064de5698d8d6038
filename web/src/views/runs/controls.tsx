/** The actions that the state of a run allows. */

import { useState } from "preact/hooks";
import { call, cancelRun, deleteRun, pauseRun, resumeRun, retryRun, type Run } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { announce } from "../../news";
import { go, href, hrefWith } from "../../router";
import { hasEnded } from "./live";

interface Props {
  run: Run;
  onRun: (run: Run) => void;
}

const GOING = new Set<Run["state"]>(["queued", "starting", "running", "interrupted", "pausing", "paused"]);

export function Controls({ run, onRun }: Props) {
  const [error, setError] = useState<unknown>(null);
  const path = { run_id: run.id };

  async function ask(act: () => Promise<void>): Promise<void> {
    try {
      setError(null);
      await act();
    } catch (refused) {
      setError(refused);
    }
  }

  async function remove(): Promise<void> {
    const text = "This deletes its metrics and checkpoints. Registered model versions are kept.";
    if (!(await confirmed("Delete this run?", text, "Delete"))) return;
    await call(deleteRun({ path }));
    announce("Deleted the run.");
    go(href("runs"));
  }

  const change = (send: () => Promise<Run>) => () => void ask(async () => onRun(await send()));
  const again = async () => go(href("runs", (await call(retryRun({ path }))).id));
  return (
    <div class="stack">
      <div class="actions">
        {run.state === "running" && (
          <button type="button" onClick={change(() => call(pauseRun({ path })))}>
            Pause
          </button>
        )}
        {run.state === "paused" && (
          <button type="button" class="primary" onClick={change(() => call(resumeRun({ path })))}>
            Resume
          </button>
        )}
        {GOING.has(run.state) && (
          <button type="button" class="danger" onClick={change(() => call(cancelRun({ path })))}>
            Cancel
          </button>
        )}
        {(run.state === "failed" || run.state === "cancelled") && (
          <button type="button" onClick={() => void ask(again)}>
            Retry
          </button>
        )}
        {run.model && (
          <a class="button primary" href={href("models", run.model.name)}>
            Predict
          </a>
        )}
        {run.progress && !run.config["lr_range"] && (
          <a class="button" href={href("understand", run.id)}>
            Understand
          </a>
        )}
        <a class="button" href={hrefWith(["new"], { from: run.id })}>
          Clone
        </a>
        {hasEnded(run) && (
          <button type="button" onClick={() => void ask(remove)}>
            Delete
          </button>
        )}
      </div>
      {error !== null && <Failure error={error} />}
    </div>
  );
}
