/** The loss at each learning rate of a test of learning rates, and the one that it suggests. */

import { Frame, pointsOf } from "../../components/charts/frame";
import { logarithmic, numeric } from "../../components/charts/scale";
import { number, sentence } from "../../format";
import { hrefWith } from "../../router";
import "../../styles/sweeps.css";

export interface LrRange {
  learning_rates: number[];
  /** null or a word for a loss that is not finite */
  losses: unknown[];
  suggested?: number | null;
  /** the rates around it at which the loss falls fast, too */
  range?: [number, number] | null;
  detail?: string;
}

const TALL = 600; // pixels, more than the plot has
const ROOM = 2; // times the first loss, above which the curve leaves the plot

export function LrRangePlot({ runId, found }: { runId: string; found: LrRange }) {
  const { learning_rates: rates, suggested = null, range } = found;
  const losses = found.losses.map((loss) => (typeof loss === "number" ? loss : NaN));
  const most = ROOM * (losses.find(Number.isFinite) ?? Infinity);
  const y = numeric(losses.filter((loss) => loss <= most));
  const advice =
    suggested === null
      ? "No learning rate is suggested: the loss does not fall."
      : `The suggested learning rate is ${number(suggested)}, where the loss falls fastest.`;
  return (
    <section class="card" aria-labelledby="lr-range">
      <h2 id="lr-range">Loss over learning rate</h2>
      <Frame
        x={logarithmic([rates[0] ?? 1e-6, rates.at(-1) ?? 1])}
        y={y}
        xLabel="learning rate"
        yLabel="loss"
        label={`Loss over the learning rate from ${number(rates[0])} to ${number(rates.at(-1))}. ${advice}`}
      >
        {(place) => (
          <>
            {range && <Band left={place.toX(range[0])} right={place.toX(range[1])} />}
            <polyline class="member best" points={pointsOf(rates, losses, place)} />
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
      <p>{found.detail ? sentence(found.detail) : advice}</p>
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
