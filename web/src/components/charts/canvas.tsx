/** A canvas that is redrawn when its size, the colour scheme or its inputs change. */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { tick } from "../../format";
import { powers, type Range, ticks } from "./axis";

export interface Palette {
  ink: string;
  quiet: string;
  line: string;
  surface: string;
  accent: string;
  second: string;
  good: string;
  bad: string;
  classes: string[];
}

export interface Pen {
  context: CanvasRenderingContext2D;
  width: number;
  height: number;
  palette: Palette;
}

interface Props {
  /** description of the plot for screen readers */
  label: string;
  height: number;
  draw: (pen: Pen) => void;
  /** everything that `draw` reads */
  inputs: readonly unknown[];
  children?: ComponentChildren;
}

export function Canvas({ label, height, draw, inputs, children }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useWidth(canvas);
  const scheme = useScheme();
  // Before the next paint, so that the plot and its label always show the same state.
  useLayoutEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || width === 0) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    context.font = `12px ${getComputedStyle(element).fontFamily}`;
    draw({ context, width, height, palette: paletteOf(element) });
  }, [width, height, scheme, ...inputs]);
  return (
    <figure class="canvas">
      <canvas ref={canvas} role="img" aria-label={label} style={{ height: `${height}px` }} />
      {children && <figcaption class="quiet small">{children}</figcaption>}
    </figure>
  );
}

/** The width of an element in pixels, 0 before it is known. */
export function useWidth(canvas: { current: Element | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = canvas.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return width;
}

function useScheme(): boolean {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const update = () => setDark(query.matches);
    query.addEventListener("change", update);
    return () => query.removeEventListener("change", update);
  }, []);
  return isDark;
}

const CLASSES = 8;

function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: color("ink"),
    quiet: color("quiet"),
    line: color("line"),
    surface: color("surface"),
    accent: color("accent"),
    second: color("second"),
    good: color("good"),
    bad: color("bad"),
    classes: Array.from({ length: CLASSES }, (_, place) => color(`class-${place + 1}`)),
  };
}

/** The plot area of the canvas, and the value ranges of its axes. */
export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  x: Range;
  y: Range;
  toX: (value: number) => number;
  toY: (value: number) => number;
}

interface Labels {
  x: string;
  y: string;
  isLog?: boolean;
}

/** Draws axes with round tick values and returns the plot area. */
export function axes(pen: Pen, x: Range, y: Range, labels: Labels): Frame {
  const { context, palette } = pen;
  const [left, top, right, bottom] = [pen.width < 320 ? 44 : 54, 22, 10, 38];
  const [width, height] = [pen.width - left - right, pen.height - top - bottom];
  const toX = (value: number) => left + ((value - x[0]) / (x[1] - x[0])) * width;
  const toY = (value: number) => top + height - ((value - y[0]) / (y[1] - y[0])) * height;
  context.strokeStyle = palette.line;
  context.fillStyle = palette.quiet;
  context.lineWidth = 1;
  context.textAlign = "center";
  for (const at of ticks(x, Math.max(2, Math.floor(width / 60)))) {
    stroke(context, [[toX(at), top], [toX(at), top + height]]);
    context.fillText(tick(at), toX(at), top + height + 16);
  }
  context.textAlign = "right";
  for (const at of labels.isLog ? powers(y) : ticks(y, Math.max(2, Math.floor(height / 45)))) {
    stroke(context, [[left, toY(at)], [left + width, toY(at)]]);
    context.fillText(labels.isLog ? tick(Number((10 ** at).toPrecision(3))) : tick(at), left - 6, toY(at) + 4);
  }
  context.fillStyle = palette.ink;
  context.textAlign = "right";
  context.fillText(labels.x, left + width, pen.height - 5);
  context.textAlign = "left";
  context.fillText(labels.y, Math.max(2, left - 48), 12);
  return { left, top, width, height, x, y, toX, toY };
}

/** Clips `draw` to the plot area. */
export function inside({ context }: Pen, frame: Frame, draw: () => void): void {
  context.save();
  context.beginPath();
  context.rect(frame.left, frame.top, frame.width, frame.height);
  context.clip();
  draw();
  context.restore();
}

export function stroke(context: CanvasRenderingContext2D, points: [number, number][]): void {
  context.beginPath();
  points.forEach(([x, y], place) => (place === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
  context.stroke();
}

export function dot(context: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** Returns the range of the values with a margin. */
export function rangeOf(values: number[], room = 0.06): Range {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  if (least > most) return [0, 1];
  const extra = (most - least) * room || Math.abs(most) * 0.1 || 1;
  return [least - extra, most + extra];
}

/** Returns the channels of a colour such as #2450c8, or #fff, to which the build may shorten it. */
export function channels(color: string): [number, number, number] {
  const digits = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(color)?.[1] ?? "888888";
  const hex = digits.length === 3 ? [...digits].map((digit) => digit + digit).join("") : digits;
  return [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as [number, number, number];
}
