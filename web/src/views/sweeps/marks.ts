/** The trial that all plots and the leaderboard highlight, and the colours of trials. */

import { useMemo, useState } from "preact/hooks";
import type { Sweep, SweepTrial } from "../../api";
import { number } from "../../format";
import { metricTitle } from "../../metrics";
import { labelOf, textOf, valued, valueOf } from "./parameters";

export interface Marking {
  /** the number of the highlighted trial */
  marked: number | null;
  mark: (trial: number | null) => void;
  colorOf: (trial: SweepTrial) => string;
}

export function useMarking(sweep: Sweep | null): Marking {
  const [marked, mark] = useState<number | null>(null);
  const colors = useMemo(() => colorsOf(sweep), [sweep]);
  return { marked, mark, colorOf: ({ trial }) => colors.get(trial) ?? "var(--edge)" };
}

/** From the accent colour for the best value to grey for the worst, by rank: an outlier changes no other colour. */
function colorsOf(sweep: Sweep | null): Map<number, string> {
  const sign = sweep?.metric.direction === "max" ? -1 : 1;
  const ranked = valued(sweep?.leaderboard ?? []).sort(
    (one, other) => sign * ((valueOf(one) ?? 0) - (valueOf(other) ?? 0)),
  );
  return new Map(
    ranked.map(({ trial }, rank) => {
      const share = ranked.length > 1 ? 1 - rank / (ranked.length - 1) : 1;
      return [trial, `color-mix(in oklab, var(--accent) ${Math.round(100 * share)}%, var(--edge))`];
    }),
  );
}

/** "Trial 3: learning rate 0.01, hidden layers 64, 64; loss 0.4" */
export function described(trial: SweepTrial, sweep: Sweep): string {
  const settings = Object.keys(sweep.space).map((path) => `${labelOf(path).toLowerCase()} ${textOf(trial.parameters[path])}`);
  const value = valueOf(trial);
  const outcome = value === null ? trial.state : `${metricTitle(sweep.metric.name).toLowerCase()} ${number(value)}`;
  return `Trial ${trial.trial}: ${settings.join("; ")} → ${outcome}`;
}
