/** Predictions over one column: a curve per output, rows as points, residuals as thin lines. */

import type { Axis } from "../../api";
import type { Range } from "../../components/charts/axis";
import { axes, dot, type Frame, inside, type Pen, rangeOf, stroke } from "../../components/charts/canvas";
import { along, decoded, spread } from "../../learning/slice";
import type { Shown } from "./shown";

const POINTS = 160; // per curve
const MOST_RESIDUALS = 60; // rows; with more, no residuals are drawn

export function drawFit(pen: Pen, shown: Shown, axis: Axis): void {
  const { subject, trajectory } = shown;
  const at = spread(axis, POINTS);
  const x: Range = [at[0] ?? 0, at.at(-1) ?? 1];
  const isClass = Boolean(subject.target.classes);
  const y: Range = isClass ? [-0.06, 1.06] : rangeOf(subject.sample.truth.flatMap((row) => row as number[]), 0.15);
  const labels = { x: axis.column, y: isClass ? "probability" : subject.outputs.slice(0, 3).join(", ") };
  const frame = axes(pen, x, y, labels);
  inside(pen, frame, () => {
    if (!isClass) drawResiduals(pen, frame, shown, axis);
    if (!isClass && trajectory.frames[0]) {
      pen.context.setLineDash([4, 5]);
      drawCurves(pen, frame, { ...shown, values: trajectory.frames[0] }, axis, at, 1.2);
      pen.context.setLineDash([]);
    }
    drawCurves(pen, frame, shown, axis, at, 2.6);
    drawPoints(pen, frame, shown, axis);
  });
}

function drawCurves(pen: Pen, frame: Frame, shown: Shown, axis: Axis, at: number[], thick: number): void {
  const { context, palette } = pen;
  const width = shown.subject.outputs.length;
  const answers = along(shown, axis, at);
  for (let output = 0; output < Math.min(width, palette.classes.length); output++) {
    context.strokeStyle = colorOf(pen, shown, output);
    context.lineWidth = thick;
    stroke(
      context,
      at.map((value, row) => [frame.toX(value), frame.toY(answers[row * width + output] ?? NaN)]),
    );
  }
}

function colorOf({ palette }: Pen, { subject }: Shown, output: number): string {
  const isOne = subject.outputs.length === 1;
  return (isOne ? palette.second : palette.classes[output % palette.classes.length]) ?? palette.ink;
}

/** Whether the plot shows the residual of each row. */
export function showsResiduals({ sample, labels, outputs }: Shown["subject"]): boolean {
  return sample.x.length <= MOST_RESIDUALS && labels.length === 1 && outputs.length === 1;
}

function drawResiduals({ context, palette }: Pen, frame: Frame, shown: Shown, axis: Axis): void {
  const { subject } = shown;
  if (!showsResiduals(subject)) return;
  const at = subject.sample.x.map((row) => decoded(subject, axis, row[axis.place] ?? 0));
  const answers = along(shown, axis, at);
  context.strokeStyle = palette.bad;
  context.globalAlpha = 0.5;
  context.lineWidth = 1;
  at.forEach((value, row) => {
    const truth = (subject.sample.truth[row] as number[])[0] ?? 0;
    stroke(context, [[frame.toX(value), frame.toY(truth)], [frame.toX(value), frame.toY(answers[row] ?? truth)]]);
  });
  context.globalAlpha = 1;
}

function drawPoints(pen: Pen, frame: Frame, shown: Shown, axis: Axis): void {
  const { context, palette } = pen;
  const { subject } = shown;
  const isClass = Boolean(subject.target.classes);
  subject.sample.x.forEach((row, place) => {
    const truth = subject.sample.truth[place] as number | number[];
    const px = frame.toX(decoded(subject, axis, row[axis.place] ?? 0));
    const values = typeof truth === "number" ? [truth] : truth;
    values.forEach((value, output) => {
      // Rows are drawn at the top edge, in the colour of their class.
      const color = isClass ? palette.classes[value % palette.classes.length] : values.length === 1 ? palette.accent : colorOf(pen, shown, output);
      const py = isClass ? frame.toY(1.03) + ((place * 7) % 9) - 4 : frame.toY(value);
      mark(pen, px, py, color ?? palette.ink, subject.sample.split[place] === "train");
    });
  });
  context.globalAlpha = 1;
}

/** Draws a row: filled for training rows, open for validation rows. */
export function mark({ context, palette }: Pen, x: number, y: number, color: string, isTrained: boolean): void {
  context.globalAlpha = 0.9;
  context.lineWidth = 1.4;
  context.fillStyle = isTrained ? color : palette.surface;
  context.strokeStyle = isTrained ? palette.surface : color;
  dot(context, x, y, 4);
  context.stroke();
  context.globalAlpha = 1;
}
