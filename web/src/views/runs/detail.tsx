/** One run: progress, curves, evaluation, checkpoints, log and configuration. */

import { useState } from "preact/hooks";
import { call, renameRun, type Run } from "../../api";
import { asked } from "../../components/ask";
import { Failure, Notices } from "../../components/failure";
import { lazy } from "../../components/lazy";
import { ProgressBar } from "../../components/progress";
import { RunState } from "../../components/state";
import { count, duration, number, percent, time } from "../../format";
import { href } from "../../router";
import { Checkpoints } from "./checkpoints";
import { Controls } from "./controls";
import { Curves } from "./curves";
import { hasEnded, useLive } from "./live";
import { Log } from "./log";
import { useReplay } from "./replay";
import { Result } from "./result";
import { titleOf } from "./title";

export function RunDetail({ id }: { id: string }) {
  const live = useLive(id);
  const { run, curves } = live;
  const until = useReplay(run);
  if (!run) {
    if (live.error !== null) return <Failure error={live.error} retry={live.reload} />;
    return <h1 class="quiet">Run</h1>;
  }
  const isTest = Boolean(run.config["lr_range"]); // of learning rates: it makes no model
  const rates = run.evaluation?.lr_range;
  return (
    <>
      <RunHead run={run} onRun={live.setRun} />
      {live.error !== null && <Failure error={live.error} retry={live.reload} />}
      {live.connection === "waiting" && (
        <p class="notice warning" role="status">
          Connection lost. The page is reconnecting and will load all missed data.
        </p>
      )}
      <Progress run={run} />
      {run.error && <Failed run={run} />}
      <Notices notices={run.warnings ?? []} />
      {!isTest && (
        <div class={hasPlot(run) ? "seen" : "stack"}>
          <Curves runId={id} store={curves} version={curves.version} until={until}>
            {until !== null && ` Slow-motion replay: training took ${duration(run.timings?.training_s)}.`}
          </Curves>
          {hasPlot(run) && <Glimpse run={run} epoch={until ?? run.progress?.epoch ?? 0} />}
        </div>
      )}
      {rates && <LrRangePlot runId={run.id} found={rates} />}
      {run.evaluation && !isTest && <Result run={run} />}
      <div class="halves">
        {!isTest && <Checkpoints run={run} events={live.events} />}
        <Log run={run} events={live.events} />
      </div>
      <Configuration run={run} />
    </>
  );
}

const Glimpse = lazy(() => import("../understand/glimpse").then((module) => module.Glimpse));

const LrRangePlot = lazy(() => import("./lr-range").then((module) => module.LrRangePlot));

const MOST = 2; // features; with more, a plot over two of them does not show the whole model

/** Whether the view plots the predictions over the features. */
function hasPlot(run: Run): boolean {
  const features = run.config["features"];
  return Array.isArray(features) && features.length <= MOST && run.progress !== null;
}

interface RunHeadProps {
  run: Run;
  onRun: (run: Run) => void;
}

function RunHead({ run, onRun }: RunHeadProps) {
  const [error, setError] = useState<unknown>(null);

  async function rename(): Promise<void> {
    const name = await asked("Name of this run", run.name ?? "", "Rename");
    if (name === null) return;
    try {
      onRun(await call(renameRun({ path: { run_id: run.id }, body: { name: name || null } })));
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <div class="row apart">
        <div>
          <p class="quiet">
            <a href={href("runs")}>Runs</a>
            {run.sweep && (
              <>
                {" / "}
                <a href={href("sweeps", run.sweep.id)}>Sweep</a>, trial {run.sweep.trial}
              </>
            )}
          </p>
          <div class="row">
            <h1>{titleOf(run)}</h1>
            <RunState run={run} />
            <button type="button" class="plain small" onClick={() => void rename()}>
              Rename
            </button>
          </div>
        </div>
        <Controls run={run} onRun={onRun} />
      </div>
      {error !== null && <Failure error={error} />}
    </>
  );
}

function Progress({ run }: { run: Run }) {
  const { progress } = run;
  const best = run.best;
  const facts: [string, string][] = [
    ["Epoch", progress ? `${count(progress.epoch)} of ${count(progress.epochs)}` : "–"],
    ["Step", progress ? count(progress.step) : "–"],
    ["Training time", duration(run.timings?.training_s)],
    ["Best loss", best ? `${number(best.value)} at epoch ${count(best.epoch)}` : "–"],
    ["Device", run.engine ? `${run.device ?? "–"}, ${run.engine} engine` : (run.device ?? "–")],
  ];
  return (
    <section class="card" aria-label="Progress">
      <ProgressBar label="Progress of the run" share={shareOf(run)}>
        <span>{statusOf(run)}</span>
        <span>{timeLeft(run)}</span>
      </ProgressBar>
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function shareOf(run: Run): number | null {
  if (run.progress) return run.progress.fraction;
  return run.state === "starting" ? null : 0;
}

function statusOf(run: Run): string {
  if (run.state === "queued" && run.not_before) return `Retry at ${time(run.not_before)}`;
  if (run.state === "queued" && run.queue_position) return `Position ${run.queue_position} in the queue`;
  if (hasEnded(run) && run.finished_at) return `Ended ${time(run.finished_at)}`;
  return run.progress ? percent(run.progress.fraction) : "";
}

function timeLeft(run: Run): string {
  const seconds = run.progress?.eta_s;
  if (hasEnded(run) || seconds === null || seconds === undefined) return "";
  return `about ${duration(seconds)} left`;
}

function Failed({ run }: { run: Run }) {
  const problem = run.error;
  if (!problem) return null;
  return (
    <div class="notice failure" role="alert">
      <p>
        <strong>{problem.title}.</strong> {problem.detail}
      </p>
      <p class="quiet">
        <code>{problem.code}</code>
      </p>
    </div>
  );
}

function Configuration({ run }: { run: Run }) {
  return (
    <details class="card">
      <summary>Configuration</summary>
      <dl class="facts">
        <div>
          <dt>Dataset</dt>
          <dd>
            <a href={href("datasets", run.dataset.id)}>version {run.dataset.version}</a>
          </dd>
        </div>
        <div>
          <dt>Submitted</dt>
          <dd>{time(run.created_at)}</dd>
        </div>
        <div>
          <dt>Attempt</dt>
          <dd>{run.attempt}</dd>
        </div>
        <div>
          <dt>ID</dt>
          <dd>
            <code>{run.id}</code>
          </dd>
        </div>
      </dl>
      <div class="code">
        <pre tabIndex={0}>{JSON.stringify(run.config, null, 2)}</pre>
      </div>
    </details>
  );
}
