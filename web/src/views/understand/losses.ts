/** The loss curves of a run. */

import { useEffect } from "preact/hooks";
import { call, getMetrics, type MetricColumns } from "../../api";
import { useResource } from "../../resource";

export interface LossCurve {
  split: string;
  epochs: number[];
  values: number[];
}

const POINTS = 1_000; // per curve

/** Loads the curves again whenever the trajectory has grown. */
export function useLosses(runId: string, epoch: number, isFinal: boolean): LossCurve[] {
  const found = useResource((signal) => loadLosses(runId, signal), [runId]);
  useEffect(() => {
    if (epoch > 0) found.reload();
  }, [epoch, isFinal]);
  return found.data ?? [];
}

export async function loadLosses(runId: string, signal: AbortSignal): Promise<LossCurve[]> {
  const query = { names: "loss", splits: "train,validation", max_points: POINTS, layout: "columns" } as const;
  const page = await call(getMetrics({ path: { run_id: runId }, query, signal }));
  const { epoch, split, value } = page.data as MetricColumns;
  return ["train", "validation"]
    .map((name): LossCurve => {
      const rows = epoch.map((_, row) => row).filter((row) => split[row] === name);
      return {
        split: name,
        epochs: rows.map((row) => epoch[row] ?? 0),
        values: rows.map((row) => Number(value[row])),
      };
    })
    .filter((curve) => curve.epochs.length > 0);
}

/** Returns the loss at an epoch, or the last one before it. */
export function lossAt(curve: LossCurve, epoch: number): number | null {
  const place = curve.epochs.findLastIndex((each) => each <= epoch);
  return curve.values[place] ?? null;
}
