/** The numbers by which versions are compared. */

import type { ModelVersion } from "../../api";

type Metrics = Record<string, Record<string, unknown> | undefined>;

const ORDER = ["accuracy", "f1", "auc", "r2", "rmse", "mae", "cross_entropy", "mse", "sse", "loss"];
const TITLES: Record<string, string> = { r2: "R²", rmse: "RMSE", mae: "MAE", mse: "MSE", sse: "SSE", auc: "AUC", f1: "F1", accuracy: "Accuracy", cross_entropy: "Cross-entropy", loss: "Loss" };

/** Returns the rows that the figures are of: those that training did not see, where there are any. */
export function splitOf(version: ModelVersion): string | undefined {
  return ["test", "validation", "train"].find((split) => split in version.metrics);
}

/** Returns the single numbers of one split, the telling ones first. */
export function figures(version: ModelVersion, split = splitOf(version)): [string, number][] {
  const found = (version.metrics as Metrics)[split ?? ""] ?? {};
  return ORDER.flatMap((name): [string, number][] => {
    const value = found[name];
    return typeof value === "number" ? [[TITLES[name] ?? name, value]] : [];
  });
}
