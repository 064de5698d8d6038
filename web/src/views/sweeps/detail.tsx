/** One sweep: its progress, plots of its trials, and the leaderboard. */

import type { Sweep, SweepTrial } from "../../api";
import { Failure, Notices } from "../../components/failure";
import { ProgressBar } from "../../components/progress";
import { RunState } from "../../components/state";
import { count, number, time } from "../../format";
import { metricTitle, rowsOf } from "../../metrics";
import { href } from "../../router";
import { Controls } from "./controls";
import { MemberCurves } from "./curves";
import { Leaderboard, TrialLink } from "./leaderboard";
import { hasEnded, useLiveSweep } from "./live";
import { useMarking } from "./marks";
import { Parallel } from "./parallel";
import { OverRate } from "./rates";
import { titleOf } from "./title";

export function SweepDetail({ id }: { id: string }) {
  const live = useLiveSweep(id);
  const { sweep } = live;
  const marking = useMarking(sweep);
  if (!sweep) {
    if (live.error !== null) return <Failure error={live.error} retry={live.reload} />;
    return <h1 class="quiet">Sweep</h1>;
  }
  const trials = sweep.leaderboard ?? [];
  const shared = { sweep, trials, marking };
  return (
    <>
      <div class="row apart">
        <div>
          <p class="quiet">
            <a href={href("runs")}>Runs</a> / <a href={href("sweeps")}>Sweeps</a>
          </p>
          <div class="row">
            <h1>{titleOf(sweep)}</h1>
            <RunState run={sweep} />
          </div>
        </div>
        <Controls sweep={sweep} onSweep={live.setSweep} />
      </div>
      {live.error !== null && <Failure error={live.error} retry={live.reload} />}
      {live.connection === "waiting" && (
        <p class="notice warning" role="status">
          Connection lost. The page is reconnecting and will load all missed data.
        </p>
      )}
      <Progress sweep={sweep} trials={trials} />
      {sweep.error && (
        <div class="notice failure" role="alert">
          <p>
            <strong>{sweep.error.title}.</strong> {sweep.error.detail}
          </p>
        </div>
      )}
      <Notices notices={sweep.warnings ?? []} />
      <div class="seen">
        <MemberCurves {...shared} />
        <OverRate {...shared} />
      </div>
      <Parallel {...shared} />
      <Leaderboard {...shared} />
    </>
  );
}

const STRATEGIES: Record<string, string> = {
  grid: "Grid search",
  random: "Random search",
  tpe: "TPE",
  halving: "Successive halving",
};

function Progress({ sweep, trials }: { sweep: Sweep; trials: SweepTrial[] }) {
  const { best, metric, dataset } = sweep;
  const strategy = String(sweep.strategy["type"]);
  const rungs = sweep.rungs ?? [];
  return (
    <section class="card" aria-label="Progress">
      <ProgressBar label="Progress of the sweep" share={shareOf(sweep, trials)}>
        <span>{statusOf(sweep)}</span>
        <span>{countsOf(sweep)}</span>
      </ProgressBar>
      <dl class="facts">
        <div>
          <dt>Best {metricTitle(metric.name).toLowerCase()}</dt>
          <dd>{best ? <>{number(best.value)} · <TrialLink trial={best} /></> : "–"}</dd>
        </div>
        <div>
          <dt>Compared on</dt>
          <dd>{rowsOf(metric.split)}</dd>
        </div>
        <div>
          <dt>Strategy</dt>
          <dd>
            {STRATEGIES[strategy] ?? strategy}
            {rungs.length > 0 && <small class="quiet trial">compares after {rungs.map(count).join(", ")} epochs</small>}
          </dd>
        </div>
        <div>
          <dt>Dataset</dt>
          <dd>
            <a href={href("datasets", dataset.id)}>version {dataset.version}</a>
          </dd>
        </div>
      </dl>
    </section>
  );
}

const DONE = new Set<SweepTrial["state"]>(["succeeded", "failed", "cancelled"]);

/** A trial that has ended is a whole one; another one counts by its epochs. */
function shareOf(sweep: Sweep, trials: SweepTrial[]): number {
  if (hasEnded(sweep)) return 1;
  const epochs = Number((sweep.base as unknown as { epochs: number }).epochs);
  const shares = trials.map((trial) => (DONE.has(trial.state) ? 1 : Math.min(1, trial.epochs / epochs)));
  return shares.reduce((sum, share) => sum + share, 0) / sweep.trials.total;
}

function statusOf(sweep: Sweep): string {
  if (hasEnded(sweep) && sweep.finished_at) return `Ended ${time(sweep.finished_at)}`;
  return `Submitted ${time(sweep.created_at)}`;
}

const COUNTED = ["running", "queued", "paused", "succeeded", "pruned", "failed", "cancelled"] as const;

/** "16 trials: 4 running, 12 queued" */
function countsOf({ trials }: Sweep): string {
  const parts = COUNTED.filter((name) => trials[name] > 0).map((name) => `${trials[name]} ${name}`);
  return `${trials.total} trials: ${parts.join(", ")}`;
}
