/** Parallel coordinates: an axis for each field and for the metric, a line for each trial. */

import { useRef } from "preact/hooks";
import type { Sweep, SweepTrial } from "../../api";
import { useWidth } from "../../components/charts/canvas";
import type { Scale } from "../../components/charts/scale";
import { Scroll } from "../../components/scroll";
import { metricTitle } from "../../metrics";
import { announce } from "../../news";
import { go, href } from "../../router";
import { described, type Marking } from "./marks";
import { labelOf, metricScale, scaleOf, valued, valueOf } from "./parameters";

interface Axis {
  name: string;
  scale: Scale;
  of: (trial: SweepTrial) => unknown;
  /** whether the least value is at the top */
  isDown: boolean;
}

const HEIGHT = 300;
const [TOP, BOTTOM, SIDE] = [34, 12, 70];
const GAP = 120; // pixels between two axes, at least
const TICKS = 6;
const LONGEST = 14; // letters of a tick

export function Parallel({ sweep, trials, marking }: { sweep: Sweep; trials: SweepTrial[]; marking: Marking }) {
  const place = useRef<HTMLDivElement>(null);
  const axes = axesOf(sweep, trials);
  const width = Math.max(useWidth(place), 2 * SIDE + GAP * (axes.length - 1));
  const step = (width - 2 * SIDE) / Math.max(1, axes.length - 1);
  const marked = trials.find((trial) => trial.trial === marking.marked) ?? valued(trials)[0];

  function move(by: number): void {
    const before = trials.findIndex((trial) => trial.trial === marking.marked);
    const next = trials[Math.max(0, Math.min(trials.length - 1, before + by))];
    if (!next) return;
    marking.mark(next.trial);
    announce(described(next, sweep));
  }

  const keys: Record<string, () => void> = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Home: () => move(-Infinity),
    End: () => move(Infinity),
    Escape: () => marking.mark(null),
    Enter: () => marked?.run && go(href("runs", marked.run)),
  };
  return (
    <section class="card" aria-labelledby="parallel">
      <h2 id="parallel">Settings and {metricTitle(sweep.metric.name).toLowerCase()}</h2>
      <div
        class="parallel"
        ref={place}
        role="group"
        aria-label={`Parallel coordinates of ${trials.length} trials: ${axes.map(({ name }) => name).join(", ")}`}
        aria-describedby="parallel-keys"
        tabIndex={0}
        onKeyDown={(event) => {
          const act = keys[event.key];
          if (!act) return;
          event.preventDefault();
          act();
        }}
        onBlur={() => marking.mark(null)}
      >
        <Scroll label="Plot of settings">
          <svg class="frame" width={width} height={HEIGHT} aria-hidden="true">
            {trials.toReversed().map((trial) => (
              <g
                key={trial.trial}
                onMouseEnter={() => marking.mark(trial.trial)}
                onMouseLeave={() => marking.mark(null)}
                onClick={() => trial.run && go(href("runs", trial.run))}
              >
                <polyline class={valueOf(trial) === null ? "member waits" : "member"} points={line(trial, axes, step)} style={{ stroke: marking.colorOf(trial) }} />
                <polyline class="near" points={line(trial, axes, step)} />
              </g>
            ))}
            {marked && <polyline class="member marked" points={line(marked, axes, step)} />}
            {axes.map((axis, at) => (
              <AxisMarks key={axis.name} axis={axis} x={SIDE + at * step} isLast={at === axes.length - 1} />
            ))}
          </svg>
        </Scroll>
      </div>
      <p class="small">{marked ? described(marked, sweep) : "No trial has a value yet."}</p>
      <p class="quiet small" id="parallel-keys">
        The bluer a line, the better. Point at a line, or use the keys ↑ ↓ from the best to the last; Enter opens the run.
      </p>
    </section>
  );
}

function AxisMarks({ axis, x, isLast }: { axis: Axis; x: number; isLast: boolean }) {
  const side = isLast ? 8 : -8;
  return (
    <g>
      <line class="guide" x1={x} x2={x} y1={TOP} y2={HEIGHT - BOTTOM} />
      <text x={x} y={14} text-anchor="middle" class="axis">
        {axis.name}
      </text>
      {axis.scale.ticks(TICKS).map(({ at, text }) => (
        <g key={text}>
          <line class="guide" x1={x - 3} x2={x + 3} y1={height(at, axis)} y2={height(at, axis)} />
          <text x={x + side} y={height(at, axis) + 4} text-anchor={isLast ? "start" : "end"}>
            {cut(text)}
          </text>
        </g>
      ))}
    </g>
  );
}

function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

function height(share: number, { isDown }: Axis): number {
  return TOP + (isDown ? share : 1 - share) * (HEIGHT - TOP - BOTTOM);
}

/** Returns the points of a trial; without a value, its line ends before the metric. */
function line(trial: SweepTrial, axes: Axis[], step: number): string {
  const points = axes.flatMap((axis, at) => {
    const share = axis.scale.share(axis.of(trial));
    return share === null ? [] : [`${SIDE + at * step},${height(share, axis).toFixed(1)}`];
  });
  return points.join(" ");
}

function axesOf(sweep: Sweep, trials: SweepTrial[]): Axis[] {
  const fields = Object.entries(sweep.space).map(([path, dimension]): Axis => ({
    name: labelOf(path),
    scale: scaleOf(dimension),
    of: (trial) => trial.parameters[path],
    isDown: false,
  }));
  const metric: Axis = {
    name: `${metricTitle(sweep.metric.name)} (${sweep.metric.split})`,
    scale: metricScale(trials),
    of: valueOf,
    isDown: sweep.metric.direction === "min", // the best trial is at the top
  };
  return [...fields, metric];
}
