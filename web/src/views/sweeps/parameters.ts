/** The fields in which the members of a sweep differ: their names, values and axes. */

import type { SweepTrial } from "../../api";
import { linear, logarithmic, numeric, type Scale, words } from "../../components/charts/scale";
import { number } from "../../format";

/** path → dimension, as `GET /sweeps/{id}` has it */
export type Space = Record<string, Record<string, unknown>>;

const LABELS: Record<string, string> = { hidden: "Hidden layers" };

/** `optimizer.learning_rate` → "Learning rate" */
export function labelOf(path: string): string {
  const name = path.split(".").pop() ?? path;
  const text = LABELS[name] ?? name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Returns a value of the configuration as text: `[64, 64]` → "64, 64". */
export function textOf(value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(textOf).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

/** Returns the values of a dimension in words: "0.001 – 0.1, log-uniform". */
export function rangeText(dimension: Record<string, unknown>): string {
  const [kind = "", values = []] = Object.entries(dimension)[0] as [string, unknown[]];
  if (kind === "grid" || kind === "choice") return values.map(textOf).join(" | ");
  const range = values.map(textOf).join(" – ");
  return kind === "log_uniform" ? `${range}, log-uniform` : range;
}

/** Returns the axis of a field. */
export function scaleOf(dimension: Record<string, unknown>): Scale {
  const [kind = "", values = []] = Object.entries(dimension)[0] as [string, unknown[]];
  if (kind === "log_uniform") return logarithmic(values as [number, number]);
  if (kind === "uniform" || kind === "int") return linear(values as [number, number]);
  return words(values, textOf);
}

/** The field over which the loss is plotted: the learning rate, else the first one with numbers. */
export function plottedPath(space: Space): string | undefined {
  const numbers = Object.entries(space).filter(([, dimension]) =>
    (Object.values(dimension)[0] as unknown[]).every((value) => typeof value === "number"),
  );
  const rate = numbers.find(([path]) => path.endsWith("learning_rate"));
  return (rate ?? numbers[0])?.[0];
}

/** Returns the axis of numbers over which the loss is plotted. */
export function plottedScale(dimension: Record<string, unknown>): Scale {
  const [kind, values] = Object.entries(dimension)[0] as [string, number[]];
  return kind === "grid" || kind === "choice" ? numeric(values) : scaleOf(dimension);
}

/** Returns the metric of a trial, null if it is unknown or not finite. */
export function valueOf({ value }: SweepTrial): number | null {
  return typeof value === "number" ? value : null;
}

const FAR = 1000; // times the median, above which a trial that diverged lies on the edge of the axis

/** Returns the axis of the metric. */
export function metricScale(trials: SweepTrial[]): Scale {
  const values = valued(trials).map((trial) => valueOf(trial) ?? 0);
  const sizes = values.map(Math.abs).sort((one, other) => one - other);
  const most = (sizes[Math.floor((sizes.length - 1) / 2)] || Infinity) * FAR;
  const scale = numeric(values.filter((value) => Math.abs(value) <= most));
  const clamped = (share: number | null) => (share === null ? null : Math.max(0, Math.min(1, share)));
  return { ...scale, share: (value) => clamped(scale.share(value)) };
}

/** Returns the trials that have a value, best first as the leaderboard is. */
export function valued(trials: SweepTrial[]): SweepTrial[] {
  return trials.filter((trial) => valueOf(trial) !== null);
}
