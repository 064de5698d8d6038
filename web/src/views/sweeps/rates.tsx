/** The metric of each trial over its learning rate. */

import type { Sweep, SweepTrial } from "../../api";
import { Frame } from "../../components/charts/frame";
import { go, href } from "../../router";
import { metricTitle } from "../../metrics";
import { described, type Marking } from "./marks";
import { labelOf, metricScale, plottedPath, plottedScale, valued, valueOf } from "./parameters";

export function OverRate({ sweep, trials, marking }: { sweep: Sweep; trials: SweepTrial[]; marking: Marking }) {
  const path = plottedPath(sweep.space);
  if (path === undefined) return null;
  const metric = metricTitle(sweep.metric.name);
  const name = labelOf(path).toLowerCase();
  const shown = valued(trials);
  const best = shown[0];
  const at = best ? ` The best trial has a ${name} of ${String(best.parameters[path])}.` : "";
  const marked = shown.find((trial) => trial.trial === marking.marked) ?? best;
  return (
    <section class="card" aria-labelledby="over-rate">
      <h2 id="over-rate">
        {metric} over {name}
      </h2>
      <Frame
        x={plottedScale(sweep.space[path] ?? {})}
        y={metricScale(trials)}
        xLabel={name}
        yLabel={`${sweep.metric.split} ${sweep.metric.name}`}
        label={`${metric} of ${shown.length} trials over their ${name}.${at}`}
      >
        {({ toX, toY }) =>
          [...shown.toReversed(), ...(marked ? [marked] : [])].map((trial, place) => {
            const [x, y] = [toX(trial.parameters[path]), toY(valueOf(trial))];
            if (x === null || y === null) return null;
            const isMark = place === shown.length;
            return (
              <circle
                key={isMark ? "marked" : trial.trial}
                class={isMark ? "member marked" : "member"}
                cx={x}
                cy={y}
                r={isMark ? 7 : 5}
                style={isMark ? {} : { fill: marking.colorOf(trial) }}
                onMouseEnter={() => marking.mark(trial.trial)}
                onMouseLeave={() => marking.mark(null)}
                onClick={() => trial.run && go(href("runs", trial.run))}
              >
                <title>{described(trial, sweep)}</title>
              </circle>
            );
          })
        }
      </Frame>
      <p class="quiet small">Each point is a trial: the bluer, the better. The circle marks the best one, or the one that you point at.</p>
    </section>
  );
}
