/** The loss at each learning rate of a test of learning rates, and the one that it suggests. */

import type { LearningRates } from "../../api";
import { Frame, pointsOf } from "../../components/charts/frame";
import { logarithmic, numeric } from "../../components/charts/scale";
import { number, sentence } from "../../format";
import { hrefWith } from "../../router";
import "../../styles/sweeps.css";
import { smoothed } from "./smooth";

const TALL = 600; // pixels, more than the plot has
const ROOM = 2; // times the first loss, above which the curve leaves the plot
const WEIGHT = 0.9; // of the smoothing: each loss is that of one batch

export function LrRangePlot({ runId, found }: { runId: string; found: LearningRates }) {
  const { learning_rates: rates, losses, suggested = null, range, detail } = found;
  const most = ROOM * (losses[0] ?? Infinity);
  const smooth = smoothed(losses, WEIGHT);
  const y = numeric(smooth.filter((loss) => loss <= most));
  return (
    <section class="card" aria-labelledby="lr-range">
      <h2 id="lr-range">Loss over learning rate</h2>
      <Frame
        x={logarithmic([rates[0] ?? 1e-6, rates.at(-1) ?? 1])}
        y={y}
        xLabel="learning rate"
        yLabel="loss"
        label={`Loss over the learning rate from ${number(rates[0])} to ${number(rates.at(-1))}. ${sentence(detail)}`}
      >
        {(place) => (
          <>
            {range && <Band left={place.toX(range[0])} right={place.toX(range[1])} />}
            <polyline class="raw" points={pointsOf(rates, losses, place)} />
            <polyline class="best" points={pointsOf(rates, smooth, place)} />
            {suggested !== null && (
              <line
                class="suggested"
                x1={place.toX(suggested) ?? 0}
                x2={place.toX(suggested) ?? 0}
                y1={0}
                y2={TALL}
              />
            )}
          </>
        )}
      </Frame>
      <p>{sentence(detail)}</p>
      {suggested !== null && (
        <div class="actions">
          <a class="button primary" href={hrefWith(["new"], { from: runId, rate: String(suggested) })}>
            Use {number(suggested)}
          </a>
        </div>
      )}
    </section>
  );
}

function Band({ left, right }: { left: number | null; right: number | null }) {
  if (left === null || right === null) return null;
  return <rect class="band" x={left} width={Math.max(0, right - left)} y={0} height={TALL} />;
}
