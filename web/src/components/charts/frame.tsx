/** An SVG plot in pixels of the page, with two axes that may be logarithmic. */

import type { ComponentChildren } from "preact";
import { useId, useRef } from "preact/hooks";
import { useWidth } from "./canvas";
import type { Scale } from "./scale";

export interface Place {
  /** null for a value without a place on the axis */
  toX: (value: unknown) => number | null;
  toY: (value: unknown) => number | null;
}

interface Props {
  x: Scale;
  y: Scale;
  xLabel: string;
  yLabel: string;
  /** description of the plot for screen readers */
  label: string;
  /** the marks, which are clipped to the plot area */
  children: (place: Place) => ComponentChildren;
}

const HEIGHT = 300;
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 14, 26, 42];
const EDGE = 10; // pixels that a mark may lie outside of the plot area
const [X_TICK, Y_TICK] = [70, 45]; // pixels between two ticks, at least

export function Frame({ x, y, xLabel, yLabel, label, children }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const full = useWidth(place);
  const clip = useId();
  const [width, height] = [Math.max(1, full - LEFT - RIGHT), HEIGHT - TOP - BOTTOM];
  const on = (share: number | null, start: number, length: number) => (share === null ? null : start + share * length);
  const toX = (value: unknown) => on(x.share(value), LEFT, width);
  const toY = (value: unknown) => on(y.share(value), TOP + height, -height);
  return (
    <div class="frame" ref={place} style={{ minHeight: `${HEIGHT}px` }}>
      {full > 0 && (
        <svg width={full} height={HEIGHT} role="img" aria-label={label}>
          <clipPath id={clip}>
            <rect x={LEFT - EDGE} y={TOP - EDGE} width={width + 2 * EDGE} height={height + 2 * EDGE} />
          </clipPath>
          {x.ticks(Math.floor(width / X_TICK)).map(({ at, text }) => (
            <g key={`x${text}`}>
              <line class="grid" x1={LEFT + at * width} x2={LEFT + at * width} y1={TOP} y2={TOP + height} />
              <text x={LEFT + at * width} y={TOP + height + 16} text-anchor="middle">
                {text}
              </text>
            </g>
          ))}
          {y.ticks(Math.floor(height / Y_TICK)).map(({ at, text }) => (
            <g key={`y${text}`}>
              <line class="grid" x1={LEFT} x2={LEFT + width} y1={TOP + height * (1 - at)} y2={TOP + height * (1 - at)} />
              <text x={LEFT - 7} y={TOP + height * (1 - at) + 4} text-anchor="end">
                {text}
              </text>
            </g>
          ))}
          <text x={LEFT + width} y={HEIGHT - 6} text-anchor="end" class="axis">
            {xLabel}
          </text>
          <text x={2} y={13} class="axis">
            {yLabel}
          </text>
          <g clip-path={`url(#${clip})`}>{children({ toX, toY })}</g>
        </svg>
      )}
    </div>
  );
}

/** Returns the points of a line as SVG reads them; points without a place are left out. */
export function pointsOf(xs: readonly number[], ys: readonly number[], { toX, toY }: Place): string {
  const found: string[] = [];
  for (const [at, value] of xs.entries()) {
    const [x, y] = [toX(value), toY(ys[at])];
    if (x !== null && y !== null) found.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  return found.join(" ");
}
