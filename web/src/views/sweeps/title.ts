import type { Sweep } from "../../api";

/** Returns the name of a sweep, or else its target and the end of its ID. */
export function titleOf(sweep: Sweep): string {
  const target = [(sweep.base as unknown as { target: string | string[] }).target].flat().join(", ");
  return sweep.name || `${target} · ${sweep.id.slice(-6)}`;
}
