/** The predictions of a run at one epoch, beside its loss curves. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { call, getTrajectory, type Run } from "../../api";
import { netOf } from "../../learning/net";
import type { RunTrajectory } from "../../learning/trajectory";
import { href } from "../../router";
import "../../styles/lessons.css";
import { Shape } from "./shape";

export function Glimpse({ run, epoch }: { run: Run; epoch: number }) {
  const trajectory = useAt(run, epoch);
  const subject = trajectory?.subject ?? null;
  const net = useMemo(() => (subject ? netOf(subject) : null), [subject]);
  const values = trajectory?.frames.at(-1);
  if (!trajectory || !subject || !net || !values) return null;
  const place = trajectory.frames.length - 1;
  const isMoving = run.finished_at === null;
  return (
    <Shape {...{ run, trajectory, subject, net, values, place, isMoving }}>
      <p>
        <a href={href("understand", run.id)}>Replay the training epoch by epoch</a>
      </p>
    </Shape>
  );
}

/** Loads the frame of an epoch, or of the next epoch with a stored frame. */
function useAt(run: Run, epoch: number): RunTrajectory | null {
  const [trajectory, setTrajectory] = useState<RunTrajectory | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    const signal = abort.signal;
    load(run.id, epoch, trajectory, signal).then(
      (next) => {
        if (next && !signal.aborted) setTrajectory(next);
      },
      () => undefined, // keep the plot; the run view reports the lost connection
    );
    return () => abort.abort();
  }, [run.id, epoch, run.finished_at]);
  return trajectory;
}

async function load(id: string, epoch: number, known: RunTrajectory | null, signal: AbortSignal): Promise<RunTrajectory | null> {
  const first = known ?? (await one(id, -1, signal));
  const last = await one(id, Math.max(0, epoch - 1), signal);
  if (!first?.frames[0]) return null;
  if (!last.frames[0]) return first;
  return { ...last, epochs: [0, ...last.epochs], frames: [first.frames[0], ...last.frames] };
}

/** Returns a trajectory with only the first frame after an epoch. */
async function one(id: string, after: number, signal: AbortSignal): Promise<RunTrajectory> {
  const page = await call(getTrajectory({ path: { run_id: id }, query: { after, limit: 1 }, signal }));
  return {
    attempt: page.attempt,
    subject: page.subject ?? null,
    epochs: page.epochs,
    frames: page.frames.map((frame) => Float32Array.from(frame)),
    isFinal: page.is_final,
  };
}
