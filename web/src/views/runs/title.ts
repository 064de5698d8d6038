import type { Run } from "../../api";

/** A run without a name is called by what it predicts and the end of its id. */
export function titleOf(run: Run): string {
  const target = [run.config["target"]].flat().join(", ");
  return run.name || `${target} · ${run.id.slice(-6)}`;
}
