/** A scatter or line plot as SVG, for data that is small and does not change. */

import { number, tick } from "../../format";
import { type Range, ticks } from "./axis";

export interface Series {
  label: string;
  points: [number, number][];
  kind: "points" | "line";
  color: string;
}

interface Props {
  series: Series[];
  xLabel: string;
  yLabel: string;
  label: string;
  /** a reference line: the diagonal, or the x axis at zero */
  guide?: "diagonal" | "zero";
  bounds?: Bounds;
}

interface Bounds {
  x: Range;
  y: Range;
}

const WIDTH = 460;
const HEIGHT = 320;
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 12, 10, 44];

export function Xy({ series, xLabel, yLabel, label, guide, bounds }: Props) {
  const { x, y } = bounds ?? around(series, guide === "diagonal");
  const toX = (value: number) => LEFT + ((value - x[0]) / (x[1] - x[0])) * (WIDTH - LEFT - RIGHT);
  const toY = (value: number) => HEIGHT - BOTTOM - ((value - y[0]) / (y[1] - y[0])) * (HEIGHT - TOP - BOTTOM);
  return (
    <svg class="xy" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
      {ticks(x, 4).map((at) => (
        <g key={`x${at}`}>
          <line class="grid" x1={toX(at)} x2={toX(at)} y1={TOP} y2={HEIGHT - BOTTOM} />
          <text x={toX(at)} y={HEIGHT - BOTTOM + 17} text-anchor="middle">
            {tick(at)}
          </text>
        </g>
      ))}
      {ticks(y, 4).map((at) => (
        <g key={`y${at}`}>
          <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={toY(at)} y2={toY(at)} />
          <text x={LEFT - 8} y={toY(at) + 4} text-anchor="end">
            {tick(at)}
          </text>
        </g>
      ))}
      <text x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 6} text-anchor="middle" class="axis">
        {xLabel}
      </text>
      <text transform={`translate(13 ${(HEIGHT - BOTTOM) / 2}) rotate(-90)`} text-anchor="middle" class="axis">
        {yLabel}
      </text>
      {guide === "diagonal" && (
        <line
          class="guide"
          x1={toX(Math.max(x[0], y[0]))}
          y1={toY(Math.max(x[0], y[0]))}
          x2={toX(Math.min(x[1], y[1]))}
          y2={toY(Math.min(x[1], y[1]))}
        />
      )}
      {guide === "zero" && <line class="guide" x1={LEFT} x2={WIDTH - RIGHT} y1={toY(0)} y2={toY(0)} />}
      {series.map((each) =>
        each.kind === "line" ? (
          <polyline
            key={each.label}
            points={each.points.map(([px, py]) => `${toX(px)},${toY(py)}`).join(" ")}
            style={{ stroke: `var(${each.color})` }}
          >
            <title>{each.label}</title>
          </polyline>
        ) : (
          <g key={each.label} style={{ fill: `var(${each.color})` }}>
            {each.points.map(([px, py], place) => (
              <circle key={place} cx={toX(px)} cy={toY(py)} r="3">
                <title>{`${xLabel} ${number(px)}, ${yLabel} ${number(py)}`}</title>
              </circle>
            ))}
          </g>
        ),
      )}
    </svg>
  );
}

function around(series: Series[], isSquare: boolean): Bounds {
  const points = series.flatMap((each) => each.points);
  const x = padded(points.map((point) => point[0]));
  const y = padded(points.map((point) => point[1]));
  if (!isSquare) return { x, y };
  const both: Range = [Math.min(x[0], y[0]), Math.max(x[1], y[1])];
  return { x: both, y: both };
}

function padded(values: number[]): Range {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  const least = finite.reduce((one, other) => Math.min(one, other));
  const most = finite.reduce((one, other) => Math.max(one, other));
  const room = (most - least) * 0.05 || Math.abs(most) * 0.1 || 1;
  return [least - room, most + room];
}
