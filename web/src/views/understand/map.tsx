/** Predictions over two columns as colours: one per class, or a scale from low to high. */

import type { Axis } from "../../api";
import type { Range } from "../../components/charts/axis";
import { axes, channels, type Frame, inside, type Pen } from "../../components/charts/canvas";
import { contour, type Grid } from "../../learning/contours";
import { decoded, over, spread } from "../../learning/slice";
import { mark } from "./fit";
import type { Shown } from "./shown";

const WORK = 16_000_000; // multiplications per plot …
const MOVING = 4_000_000; // … and while the epoch changes
const [FINEST, COARSEST] = [84, 32]; // squares along a side

type Rgb = [number, number, number];

export function drawMap(pen: Pen, shown: Shown, pair: [Axis, Axis]): void {
  const { subject, values } = shown;
  const side = Math.round(Math.min(FINEST, Math.max(COARSEST, Math.sqrt((shown.isMoving ? MOVING : WORK) / values.length))));
  const [us, vs] = [spread(pair[0], side), spread(pair[1], side)];
  const [x, y] = [ends(us), ends(vs)];
  const frame = axes(pen, x, y, { x: pair[0].column, y: pair[1].column });
  const answers = over(shown, pair, us, vs);
  const width = subject.outputs.length;
  const colors = subject.target.classes ? classColors(pen, answers, width) : heatColors(pen, shown, answers, width);
  inside(pen, frame, () => {
    paint(pen, frame, side, colors);
    if (subject.target.classes) drawBoundaries(pen, frame, side, answers, width);
    drawRows(pen, frame, shown, pair);
  });
}

function ends(values: number[]): Range {
  return [values[0] ?? 0, values.at(-1) ?? 1];
}

/** Paints one square per prediction; the canvas smooths them when it scales them up. */
function paint({ context }: Pen, frame: Frame, side: number, colors: Rgb[]): void {
  const image = new ImageData(side, side);
  colors.forEach((color, place) => {
    const [row, column] = [side - 1 - Math.floor(place / side), place % side];
    image.data.set([...color, 255], 4 * (row * side + column));
  });
  const small = new OffscreenCanvas(side, side);
  small.getContext("2d")?.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, frame.left, frame.top, frame.width, frame.height);
}

function classColors({ palette }: Pen, answers: Float32Array, width: number): Rgb[] {
  const own = palette.classes.map(channels);
  const ground = channels(palette.surface);
  return Array.from({ length: answers.length / width }, (_, place) => {
    const shares = answers.subarray(place * width, (place + 1) * width);
    const best = shares.indexOf(Math.max(...shares));
    const certainty = ((shares[best] ?? 0) - 1 / width) / (1 - 1 / width);
    return blend(ground, own[best % own.length] ?? ground, 0.06 + 0.4 * certainty);
  });
}

function heatColors(pen: Pen, shown: Shown, answers: Float32Array, width: number): Rgb[] {
  const color = heat(pen, shown);
  return Array.from({ length: answers.length / width }, (_, place) => color(answers[place * width] ?? 0, 0.6));
}

/** Returns a colour scale over the range of the target, pale in the middle. */
function heat({ palette }: Pen, { subject }: Shown): (value: number, strength: number) => Rgb {
  const truth = subject.sample.truth.map((row) => (row as number[])[0] ?? 0);
  const [least, most] = [Math.min(...truth), Math.max(...truth)];
  const [low, high, ground] = [palette.classes[0], palette.classes[1], palette.surface].map((each) => channels(each ?? ""));
  return (value, strength) => {
    const share = Math.min(1, Math.max(-1, (2 * (value - least)) / (most - least || 1) - 1));
    return blend(ground ?? [0, 0, 0], (share < 0 ? low : high) ?? [0, 0, 0], Math.abs(share) * strength);
  };
}

function blend(from: Rgb, to: Rgb, share: number): Rgb {
  return from.map((channel, place) => channel + ((to[place] ?? 0) - channel) * share) as Rgb;
}

/** Draws the decision boundaries, where two classes are equally likely. */
function drawBoundaries({ context, palette }: Pen, frame: Frame, side: number, answers: Float32Array, width: number): void {
  context.strokeStyle = palette.ink;
  context.globalAlpha = 0.65;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let output = 0; output < width; output++) {
    const heights = new Float64Array(side * side).map((_, place) => {
      const shares = answers.subarray(place * width, (place + 1) * width);
      const rival = shares.reduce((most, share, other) => (other === output ? most : Math.max(most, share)), 0);
      return (shares[output] ?? 0) - rival;
    });
    const grid: Grid = { columns: side, rows: side, heights };
    for (const [u, v, toU, toV] of contour(grid, 0)) {
      context.moveTo(frame.left + u * frame.width, frame.top + (1 - v) * frame.height);
      context.lineTo(frame.left + toU * frame.width, frame.top + (1 - toV) * frame.height);
    }
  }
  context.stroke();
  context.globalAlpha = 1;
}

function drawRows(pen: Pen, frame: Frame, shown: Shown, pair: [Axis, Axis]): void {
  const { subject } = shown;
  const color = subject.target.classes ? null : heat(pen, shown);
  subject.sample.x.forEach((row, place) => {
    const [x, y] = pair.map((axis) => decoded(subject, axis, row[axis.place] ?? 0));
    const truth = subject.sample.truth[place] as number | number[];
    const own =
      typeof truth === "number"
        ? (pen.palette.classes[truth % pen.palette.classes.length] ?? pen.palette.ink)
        : `rgb(${(color?.(truth[0] ?? 0, 1) ?? [0, 0, 0]).join(" ")})`;
    mark(pen, frame.toX(x ?? 0), frame.toY(y ?? 0), own, subject.sample.split[place] === "train");
  });
}
