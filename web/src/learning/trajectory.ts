/** The parameters of a run after each epoch, also while it is still training. */

import { useEffect, useRef, useState } from "preact/hooks";
import { call, getTrajectory, type TrajectorySubject } from "../api";

export interface RunTrajectory {
  attempt: number;
  subject: TrajectorySubject | null;
  epochs: number[];
  frames: Float32Array[];
  isFinal: boolean;
}

const POLL = 400; // milliseconds between two requests while the run trains

/** Loads all frames after those of `known`. */
export async function loadTrajectory(runId: string, known: RunTrajectory | null, signal: AbortSignal): Promise<RunTrajectory> {
  let trajectory = known;
  for (;;) {
    const after = trajectory?.epochs.at(-1) ?? -1;
    const page = await call(getTrajectory({ path: { run_id: runId }, query: { after }, signal }));
    if (trajectory && trajectory.attempt !== page.attempt) {
      trajectory = null; // a new attempt may have replaced frames
      continue;
    }
    trajectory = {
      attempt: page.attempt,
      subject: page.subject ?? null,
      epochs: [...(trajectory?.epochs ?? []), ...page.epochs],
      frames: [...(trajectory?.frames ?? []), ...page.frames.map((frame) => Float32Array.from(frame))],
      isFinal: page.is_final,
    };
    if (page.next_after === null || page.next_after === undefined) return trajectory;
  }
}

export function useTrajectory(runId: string): { trajectory: RunTrajectory | null; error: unknown } {
  const [trajectory, setTrajectory] = useState<RunTrajectory | null>(null);
  const [error, setError] = useState<unknown>(null);
  const latest = useRef<RunTrajectory | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    latest.current = null;
    setTrajectory(null);
    void watch();
    return () => abort.abort();

    async function watch(): Promise<void> {
      while (!abort.signal.aborted) {
        try {
          const next = await loadTrajectory(runId, latest.current, abort.signal);
          const before = latest.current;
          latest.current = next;
          setError(null);
          if (!before || before.epochs.length !== next.epochs.length || next.isFinal) setTrajectory(next);
          if (next.isFinal) return;
        } catch (refused) {
          if (abort.signal.aborted) return;
          setError(refused);
        }
        await pause(document.visibilityState === "visible" ? POLL : 10 * POLL);
      }
    }
  }, [runId]);
  return { trajectory, error };
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
