/** The state of a dataset or a run as a coloured tag. */

import type { Dataset, Run } from "../api";

const RUN_LOOK: Record<Run["state"], string> = {
  queued: "",
  starting: "active",
  running: "active",
  pausing: "active",
  paused: "",
  cancelling: "active",
  interrupted: "",
  succeeded: "good",
  failed: "bad",
  cancelled: "",
};

export function RunState({ run }: { run: Pick<Run, "state" | "state_reason"> }) {
  const given = run.state_reason?.replaceAll("_", " ");
  // "cancelled" needs no "cancel" beside it.
  const reason = given && !run.state.startsWith(given) ? ` · ${given}` : "";
  return (
    <span class={`tag ${RUN_LOOK[run.state]}`}>
      {run.state}
      {reason}
    </span>
  );
}

export function DatasetState({ state }: { state: Dataset["state"] }) {
  const look = state === "ready" ? "good" : state === "rejected" ? "bad" : "active";
  return <span class={`tag ${look}`}>{state}</span>;
}
