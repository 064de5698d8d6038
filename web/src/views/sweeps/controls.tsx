/** The actions that the state of a sweep allows. */

import { useState } from "preact/hooks";
import { call, cancelSweep, deleteSweep, pauseSweep, resumeSweep, type Sweep } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { announce } from "../../news";
import { go, href } from "../../router";
import { hasEnded } from "./live";

const MOVING = new Set<Sweep["state"]>(["queued", "starting", "running"]);

export function Controls({ sweep, onSweep }: { sweep: Sweep; onSweep: (sweep: Sweep) => void }) {
  const [error, setError] = useState<unknown>(null);
  const path = { sweep_id: sweep.id };

  async function ask(act: () => Promise<void>): Promise<void> {
    try {
      setError(null);
      await act();
    } catch (refused) {
      setError(refused);
    }
  }

  async function remove(): Promise<void> {
    const text = "This deletes its runs with their metrics and checkpoints. Registered model versions are kept.";
    if (!(await confirmed("Delete this sweep?", text, "Delete"))) return;
    await call(deleteSweep({ path }));
    announce("Deleted the sweep.");
    go(href("sweeps"));
  }

  const change = (send: () => Promise<Sweep>) => () => void ask(async () => onSweep(await send()));
  return (
    <div class="stack">
      <div class="actions">
        {MOVING.has(sweep.state) && (
          <button type="button" onClick={change(() => call(pauseSweep({ path })))}>
            Pause
          </button>
        )}
        {sweep.state === "paused" && (
          <button type="button" class="primary" onClick={change(() => call(resumeSweep({ path })))}>
            Resume
          </button>
        )}
        {!hasEnded(sweep) && sweep.state !== "cancelling" && (
          <button type="button" class="danger" onClick={change(() => call(cancelSweep({ path })))}>
            Cancel
          </button>
        )}
        {sweep.model && (
          <a class="button primary" href={href("models", sweep.model.name)}>
            Predict
          </a>
        )}
        {hasEnded(sweep) && (
          <button type="button" onClick={() => void ask(remove)}>
            Delete
          </button>
        )}
      </div>
      {error !== null && <Failure error={error} />}
    </div>
  );
}
