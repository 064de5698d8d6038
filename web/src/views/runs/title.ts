import type { Run } from "../../api";

/** Returns the name of a run, or else its target and the end of its ID. */
export function titleOf(run: Run): string {
  const target = [run.config["target"]].flat().join(", ");
  return run.name || `${target} · ${run.id.slice(-6)}`;
}
