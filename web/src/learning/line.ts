/** y = w·x + b: the loss over its two parameters, the slope of the loss, and the optimum. */

import type { TrajectorySubject } from "../api";
import type { Parameters } from "./net";

export interface Line {
  w: number;
  b: number;
}

export interface LineProblem {
  input: string;
  output: string;
  x: number[];
  y: number[];
  /** name of the loss: `mse`, `sse`, … */
  loss: string;
  error: (line: Line) => number;
  optimum: Line | null;
}

/** Returns the problem that a run solves if it fits a line over one column, else null. */
export function lineProblem(subject: TrajectorySubject): LineProblem | null {
  const isLine = subject.line && subject.labels.length === 1 && subject.outputs.length === 1;
  const [input, output] = [subject.labels[0], subject.outputs[0]];
  if (!isLine || subject.target.classes || input === undefined || output === undefined) return null;
  const { x, y } = trainingRows(subject);
  if (x.length === 0) return null;
  const closed = subject.line?.closed_form?.[output] as { weights: Record<string, number>; bias: number } | undefined;
  return {
    input,
    output,
    x,
    y,
    loss: subject.loss,
    error: errorOf(subject, x, y),
    optimum: closed ? { w: closed.weights[input] ?? 0, b: closed.bias } : null,
  };
}

/** Returns the line of a frame in the units of the columns. */
export function lineOf(subject: TrajectorySubject, values: Parameters): Line {
  const [center, scale] = [subject.centers[0] ?? 0, subject.scales[0] ?? 1];
  const [offset, unit] = [subject.target.center[0] ?? 0, subject.target.scale[0] ?? 1];
  const w = ((values[0] ?? 0) * unit) / scale;
  return { w, b: (values[1] ?? 0) * unit + offset - w * center };
}

function trainingRows(subject: TrajectorySubject): { x: number[]; y: number[] } {
  const { sample, centers, scales } = subject;
  const found = { x: [] as number[], y: [] as number[] };
  sample.x.forEach((row, place) => {
    if (sample.split[place] !== "train") return;
    found.x.push((row[0] ?? 0) * (scales[0] ?? 1) + (centers[0] ?? 0));
    found.y.push((sample.truth[place] as number[])[0] ?? 0);
  });
  return found;
}

function errorOf(subject: TrajectorySubject, x: number[], y: number[]): (line: Line) => number {
  const mean = y.reduce((sum, value) => sum + value, 0) / y.length;
  const std = Math.sqrt(y.reduce((sum, value) => sum + (value - mean) ** 2, 0) / y.length) || 1;
  const one = POINTWISE[subject.loss] ?? square;
  // The sum over a sample is extrapolated to all rows.
  const share = subject.loss === "sse" ? (subject.rows["train"] ?? y.length) : 1;
  return ({ w, b }) => {
    let sum = 0;
    for (let row = 0; row < y.length; row++) sum += one(w * (x[row] ?? 0) + b - (y[row] ?? 0), std);
    return (sum / y.length) * share;
  };
}

const square = (error: number) => error * error;

const POINTWISE: Record<string, (error: number, std: number) => number> = {
  mse: square,
  sse: square,
  mae: Math.abs,
  // In units of the squared target, as the service reports it.
  huber: (error, std) =>
    Math.abs(error) <= std ? 0.5 * error * error : std * (Math.abs(error) - 0.5 * std),
};

/** Returns the slope of the loss along one parameter. */
export function slopeOf({ error }: LineProblem, line: Line, along: keyof Line): number {
  const step = Math.max(1e-4, 1e-4 * Math.abs(line[along]));
  const [up, down] = [{ ...line, [along]: line[along] + step }, { ...line, [along]: line[along] - step }];
  return (error(up) - error(down)) / (2 * step);
}

export interface Window {
  w: [number, number];
  b: [number, number];
}

const FARTHEST = 2.5; // times the distance from start to optimum; a path that leaves the window diverges

/** Returns the part of the plane that shows the optimum and the paths to it. */
export function windowOf(problem: LineProblem, paths: Line[][]): Window {
  const starts = paths.flatMap((path) => path.slice(0, 1));
  const end = problem.optimum ?? paths[0]?.at(-1) ?? { w: 0, b: 0 };
  const own = (part: keyof Line) =>
    Math.max(...starts.map((start) => Math.abs(start[part] - end[part])), Math.abs(end[part]) * 0.25, 1e-6);
  // Scales w and b by the curvature of the loss: otherwise the contours would look like lines.
  const steepness = Math.sqrt(curvature(problem, end, "w") / curvature(problem, end, "b"));
  const reach = {
    w: Math.max(own("w"), own("b") / steepness || 0),
    b: Math.max(own("b"), own("w") * steepness || 0),
  };
  const range = (part: keyof Line): [number, number] => {
    const [low, high] = [end[part] - FARTHEST * reach[part], end[part] + FARTHEST * reach[part]];
    const inside = paths.flat().map((line) => Math.min(high, Math.max(low, line[part])));
    const all = [...inside, end[part] - reach[part], end[part] + reach[part]].filter(Number.isFinite);
    const [least, most] = [Math.min(...all), Math.max(...all)];
    const room = (most - least) * 0.12;
    return [least - room, most + room];
  };
  return { w: range("w"), b: range("b") };
}

function curvature({ error }: LineProblem, at: Line, along: keyof Line): number {
  const step = Math.max(1, Math.abs(at[along])) * 0.01;
  const moved = (by: number) => error({ ...at, [along]: at[along] + by });
  return Math.max(1e-12, (moved(step) - 2 * error(at) + moved(-step)) / step ** 2);
}
