/** Short descriptions of a run. */

import type { Run } from "../../api";
import { number } from "../../format";

/** The tag that the runs of a learning rate comparison carry: the ID of the original run. */
export const RATES_OF = "rates_of";

export interface Config {
  target?: string | string[];
  features?: string[] | null;
  task?: string;
  loss?: string;
  model?: { type: string; hidden?: number[]; activation?: string };
  optimizer?: { type: string; learning_rate?: number; momentum?: number };
  batch_size?: number | string;
  epochs?: number;
  standardize?: boolean;
}

export function configOf(run: Run): Config {
  return run.config as Config;
}

export function nameOf(run: Run): string {
  if (run.name) return run.name;
  const { target, features } = configOf(run);
  const from = features?.length === 1 ? ` from ${features[0]}` : "";
  return `${[target].flat().join(", ")}${from}`;
}

export function describeModel(run: Run): string {
  const { target, features, model, optimizer } = configOf(run);
  const columns = features && features.length <= 3 ? features.join(", ") : `${features?.length ?? 0} columns`;
  const hidden = model?.hidden?.length ? ` ${model.hidden.join("–")}` : "";
  const rate = optimizer?.learning_rate === undefined ? "" : `, learning rate ${number(optimizer.learning_rate)}`;
  return `${[target].flat().join(", ")} from ${columns} · ${model?.type}${hidden} · ${optimizer?.type}${rate}`;
}

/** Returns the name of a loss for use in a sentence. */
export function lossName(loss: string): string {
  return LOSSES[loss] ?? loss;
}

const LOSSES: Record<string, string> = {
  mse: "mean squared error",
  sse: "sum of squared errors",
  mae: "mean absolute error",
  huber: "Huber loss",
  cross_entropy: "cross-entropy",
};
