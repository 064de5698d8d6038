/** The parameters of a run's net after each epoch, also while it still learns. */

import { useEffect, useRef, useState } from "preact/hooks";
import { call, getTrajectory, type TrajectorySubject } from "../api";

export interface Film {
  attempt: number;
  subject: TrajectorySubject | null;
  epochs: number[];
  frames: Float32Array[];
  isFinal: boolean;
}

const POLL = 400; // milliseconds between two looks at a run that learns

/** Loads all frames that follow those of `known`. */
export async function loadFilm(runId: string, known: Film | null, signal: AbortSignal): Promise<Film> {
  let film = known;
  for (;;) {
    const after = film?.epochs.at(-1) ?? -1;
    const page = await call(getTrajectory({ path: { run_id: runId }, query: { after }, signal }));
    if (film && film.attempt !== page.attempt) {
      film = null; // frames may have been replaced
      continue;
    }
    film = {
      attempt: page.attempt,
      subject: page.subject ?? null,
      epochs: [...(film?.epochs ?? []), ...page.epochs],
      frames: [...(film?.frames ?? []), ...page.frames.map((frame) => Float32Array.from(frame))],
      isFinal: page.is_final,
    };
    if (page.next_after === null || page.next_after === undefined) return film;
  }
}

export function useFilm(runId: string): { film: Film | null; error: unknown } {
  const [film, setFilm] = useState<Film | null>(null);
  const [error, setError] = useState<unknown>(null);
  const latest = useRef<Film | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    latest.current = null;
    setFilm(null);
    void watch();
    return () => abort.abort();

    async function watch(): Promise<void> {
      while (!abort.signal.aborted) {
        try {
          const next = await loadFilm(runId, latest.current, abort.signal);
          const before = latest.current;
          latest.current = next;
          setError(null);
          if (!before || before.epochs.length !== next.epochs.length || next.isFinal) setFilm(next);
          if (next.isFinal) return;
        } catch (refused) {
          if (abort.signal.aborted) return;
          setError(refused);
        }
        await pause(document.visibilityState === "visible" ? POLL : 10 * POLL);
      }
    }
  }, [runId]);
  return { film, error };
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
