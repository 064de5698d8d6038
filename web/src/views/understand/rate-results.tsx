/** The results of the three runs: loss curves on one scale and, for a line, their paths. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { call, getRun, type Run } from "../../api";
import { Canvas, rangeOf } from "../../components/charts/canvas";
import { Failure } from "../../components/failure";
import { number } from "../../format";
import { lineOf, type LineProblem, windowOf } from "../../learning/line";
import { type RunTrajectory, loadTrajectory } from "../../learning/trajectory";
import { href } from "../../router";
import { type LossCurve, loadLosses } from "./losses";
import { drawLosses } from "./player";
import { drawSurface } from "./surface";
import { configOf } from "./words";

interface Outcome {
  run: Run;
  trajectory: RunTrajectory;
  losses: LossCurve[];
}

const POLL = 500; // milliseconds
const TALLEST = 3; // powers of ten above the first loss, up to which a diverging curve is plotted

export function RateResults({ runs, problem }: { runs: Run[]; problem: LineProblem | null }) {
  const { outcomes, error } = useOutcomes(runs);
  const range = useMemo(() => sharedRange(outcomes), [outcomes]);
  const window = useMemo(() => {
    const paths = outcomes.map(({ trajectory }) => pathOf(trajectory));
    return problem ? windowOf(problem, paths) : null;
  }, [outcomes, problem]);
  const best = Math.min(...outcomes.map(({ losses }) => losses[0]?.values.at(-1) ?? Infinity));
  return (
    <>
      {error !== null && <Failure error={error} />}
      <div class="rates">
        {outcomes.map((outcome) => {
          const { run, trajectory, losses } = outcome;
          const path = problem ? pathOf(trajectory) : [];
          return (
            <div key={run.id}>
              <h3>
                <a href={href("understand", run.id)}>{run.tags?.["rate"]}</a>{" "}
                <span class="quiet">η = {number(configOf(run).optimizer?.learning_rate)}</span>
              </h3>
              <Canvas
                height={190}
                label={`Loss with a learning rate that is ${run.tags?.["rate"]}. ${verdict(outcome, best)}`}
                draw={(pen) => drawLosses(pen, losses, null, range)}
                inputs={[losses, range]}
              />
              {problem && window && path.length > 0 && (
                <Canvas
                  height={220}
                  label={`Path over w and b, ${path.length - 1} steps.`}
                  draw={(pen) => drawSurface(pen, { ...problem }, window, path)}
                  inputs={[path.length, window, problem]}
                />
              )}
              <p class="small">{verdict(outcome, best)}</p>
            </div>
          );
        })}
      </div>
    </>
  );
}

function pathOf(trajectory: RunTrajectory) {
  const { subject } = trajectory;
  return subject ? trajectory.frames.map((values) => lineOf(subject, values)) : [];
}

/** Loads the results of the runs repeatedly until all of them have ended. */
function useOutcomes(runs: Run[]): { outcomes: Outcome[]; error: unknown } {
  const [outcomes, setOutcomes] = useState<Outcome[]>([]);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      try {
        const found = await Promise.all(runs.map((run) => outcomeOf(run.id, abort.signal)));
        if (abort.signal.aborted) return;
        setOutcomes(found);
        setError(null);
        if (found.some(({ run }) => !run.finished_at)) timer = setTimeout(() => void look(), POLL);
      } catch (refused) {
        if (!abort.signal.aborted) setError(refused);
      }
    };
    void look();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [runs]);
  return { outcomes, error };
}

async function outcomeOf(runId: string, signal: AbortSignal): Promise<Outcome> {
  const run = await call(getRun({ path: { run_id: runId }, signal }));
  const [trajectory, losses] = await Promise.all([loadTrajectory(runId, null, signal), loadLosses(runId, signal)]);
  return { run, trajectory, losses };
}

/** Returns a common y range for all curves, as powers of ten. */
function sharedRange(outcomes: Outcome[]): [number, number] {
  const all = outcomes.flatMap(({ losses }) => losses.flatMap((curve) => curve.values)).filter((value) => value > 0 && Number.isFinite(value));
  const first = Math.max(...outcomes.map(({ losses }) => losses[0]?.values[0] ?? 0), 1e-12);
  const most = Math.log10(first) + TALLEST;
  return rangeOf(all.map((value) => Math.min(Math.log10(value), most)));
}

const RISEN = 1.02; // times the first loss
const FALLEN = 0.5; // times the first loss
const BEHIND = 1.1; // times the best of the three

function verdict({ run, losses }: Outcome, best: number): string {
  if (run.error) return run.error.detail;
  if (!run.finished_at) return `The run is ${run.state}.`;
  const curve = losses.find((each) => each.split === "train");
  const [first, last] = [curve?.values[0] ?? NaN, curve?.values.at(-1) ?? NaN];
  const change = `The loss went from ${number(first)} to ${number(last)}`;
  if (!Number.isFinite(last) || last > first * RISEN) return `${change}: the steps overshoot and training diverges.`;
  if (last > first * FALLEN) return `${change}: the steps are too small to make progress.`;
  if (last > best * BEHIND) return `${change}: training has not converged, the best of the three is at ${number(best)}.`;
  return `${change}.`;
}
