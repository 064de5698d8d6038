/** The metrics of a version. */

import type { ModelVersion } from "../../api";
import { type Metrics, metricTitle } from "../../metrics";

const ORDER = ["accuracy", "f1", "auc", "r2", "rmse", "mae", "cross_entropy", "mse", "sse", "loss"];

/** Returns the split whose metrics are shown: a held-out one if there is any. */
export function splitOf(version: ModelVersion): string | undefined {
  return ["test", "validation", "train"].find((split) => split in version.metrics);
}

/** Returns the scalar metrics of one split, the most informative first. */
export function metricsOf(version: ModelVersion, split = splitOf(version)): [string, number][] {
  const found = (version.metrics as Record<string, Metrics | undefined>)[split ?? ""] ?? {};
  return ORDER.flatMap((name): [string, number][] => {
    const value = found[name];
    return typeof value === "number" ? [[metricTitle(name), value]] : [];
  });
}
