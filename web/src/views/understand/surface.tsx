/** The loss over w and b: contours, the closed-form optimum, the path of training. */

import { axes, channels, dot, type Frame, inside, type Pen, stroke } from "../../components/charts/canvas";
import { contour, type Grid, gridOf, levelsOf } from "../../learning/contours";
import type { Line, LineProblem, Window } from "../../learning/line";

const SIDE = 72; // grid points per side
const LEVELS = 14;
const FEW = 80; // steps drawn as points

export function drawSurface(pen: Pen, problem: LineProblem, window: Window, path: Line[]): void {
  const { context, palette } = pen;
  const frame = axes(pen, window.w, window.b, { x: "w", y: "b" });
  const { grid, levels } = surfaceOf(problem, window);
  inside(pen, frame, () => {
    shade(pen, frame, grid);
    drawContours(pen, frame, grid, levels);
    drawPath(pen, frame, path);
    if (problem.optimum) {
      context.strokeStyle = palette.good;
      context.lineWidth = 2.5;
      const [x, y] = [frame.toX(problem.optimum.w), frame.toY(problem.optimum.b)];
      stroke(context, [[x - 7, y - 7], [x + 7, y + 7]]);
      stroke(context, [[x - 7, y + 7], [x + 7, y - 7]]);
    }
  });
}

interface Surface {
  grid: Grid;
  levels: number[];
}

const known = new WeakMap<LineProblem, { window: Window; surface: Surface }>();

/** Computes the surface once: it does not change while the path grows. */
function surfaceOf(problem: LineProblem, window: Window): Surface {
  const found = known.get(problem);
  if (found && found.window === window) return found.surface;
  const [[leastW, mostW], [leastB, mostB]] = [window.w, window.b];
  const grid = gridOf(SIDE, SIDE, (u, v) =>
    problem.error({ w: leastW + u * (mostW - leastW), b: leastB + v * (mostB - leastB) }),
  );
  const bottom = problem.optimum ? problem.error(problem.optimum) : Math.min(...grid.heights);
  const surface = { grid, levels: levelsOf(grid, LEVELS, bottom) };
  known.set(problem, { window, surface });
  return surface;
}

function shade({ context, palette }: Pen, frame: Frame, { columns, rows, heights }: Grid): void {
  const image = new ImageData(columns, rows);
  const least = heights.reduce((one, other) => Math.min(one, other), Infinity);
  const most = heights.reduce((one, other) => Math.max(one, other), -Infinity);
  const color = channels(palette.accent);
  heights.forEach((height, place) => {
    const row = rows - 1 - Math.floor(place / columns);
    const share = ((height - least) / (most - least || 1)) ** 0.4;
    image.data.set([...color, 12 + 120 * share], 4 * (row * columns + (place % columns)));
  });
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d")?.putImageData(image, 0, 0);
  context.drawImage(small, frame.left, frame.top, frame.width, frame.height);
}

function drawContours({ context, palette }: Pen, frame: Frame, grid: Grid, levels: number[]): void {
  context.strokeStyle = palette.accent;
  context.globalAlpha = 0.55;
  context.lineWidth = 1;
  context.beginPath();
  for (const level of levels) {
    for (const [u, v, toU, toV] of contour(grid, level)) {
      context.moveTo(frame.left + u * frame.width, frame.top + (1 - v) * frame.height);
      context.lineTo(frame.left + toU * frame.width, frame.top + (1 - toV) * frame.height);
    }
  }
  context.stroke();
  context.globalAlpha = 1;
}

function drawPath({ context, palette }: Pen, frame: Frame, path: Line[]): void {
  const points = path
    .map(({ w, b }): [number, number] => [frame.toX(w), frame.toY(b)])
    .filter(([x, y]) => Math.abs(x) < 1e6 && Math.abs(y) < 1e6); // farther out the canvas draws nothing
  context.strokeStyle = context.fillStyle = palette.second;
  context.lineWidth = 2;
  stroke(context, points);
  for (const [x, y] of points.slice(0, FEW)) dot(context, x, y, 2.6);
  const last = points.at(-1);
  if (last) dot(context, last[0], last[1], 5.5);
}
