/** A run that a view follows: loaded once, then updated by its event stream. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { call, getMetrics, getRun, type MetricRow, type Run } from "../../api";
import { duration } from "../../format";
import { announce } from "../../news";
import { BASE, onSession } from "../../session";
import { follow, type ServerEvent } from "../../stream";
import { CurveStore } from "./curve-store";

export const MAX_POINTS = 2_400; // of each curve: two for each pixel of a wide plot
const ENDED = new Set<Run["state"]>(["succeeded", "failed", "cancelled"]);
const REFRESH = 400; // milliseconds between two requests for the progress while metrics arrive

export interface Live {
  run: Run | null;
  curves: CurveStore;
  /** counts events other than metrics, after which checkpoints and log may have changed */
  events: number;
  connection: "open" | "waiting" | "ended";
  error: unknown;
  setRun: (run: Run) => void;
  reload: () => void;
}

export function hasEnded(run: Run): boolean {
  return ENDED.has(run.state);
}

export function useLive(id: string): Live {
  const [run, setRun] = useState<Run | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [connection, setConnection] = useState<Live["connection"]>("open");
  const [events, setEvents] = useState(0);
  const [round, setRound] = useState(0);
  const store = useRef(new CurveStore());
  const draw = useDraw();
  const reload = useCallback(() => setRound((count) => count + 1), []);

  useEffect(() => onSession(reload), [reload]);
  useEffect(() => {
    const abort = new AbortController();
    setError(null);
    // After a failure the next event tries again; `watch` loads the final state itself.
    const look = paced(() => {
      call(getRun({ path: { run_id: id }, signal: abort.signal })).then(setRun, () => undefined);
    });
    const take = (event: ServerEvent) => {
      if (takeEvent(event, store.current)) draw();
      else setEvents((count) => count + 1);
      look(event.event !== "metrics");
    };
    watch(id, store.current, { signal: abort.signal, setRun, setConnection, draw, take }).catch((refused: unknown) => {
      if (!abort.signal.aborted) setError(refused);
    });
    return () => abort.abort();
  }, [id, round]);
  return { run, curves: store.current, events, connection, error, setRun, reload };
}

interface Watch {
  signal: AbortSignal;
  setRun: (run: Run) => void;
  setConnection: (state: Live["connection"]) => void;
  draw: () => void;
  take: (event: ServerEvent) => void;
}

/** Loads the run and its curves, then follows it to its end. */
async function watch(id: string, store: CurveStore, watched: Watch): Promise<void> {
  const { signal, setRun, setConnection, draw, take } = watched;
  const path = { run_id: id };
  const query = { max_points: MAX_POINTS, layout: "columns" } as const;
  const [run, page] = await Promise.all([
    call(getRun({ path, signal })),
    call(getMetrics({ path, query, signal })),
  ]);
  store.load(page);
  setRun(run);
  draw();
  if (!hasEnded(run)) {
    await follow({
      url: `${BASE}/api/v1/runs/${encodeURIComponent(id)}/events`,
      lastId: String(store.lastEventId),
      signal,
      onEvent: take,
      onState: setConnection,
    });
    if (signal.aborted) return;
    const last = await call(getRun({ path, signal }));
    setRun(last);
    announce(`The run has ${last.state} after ${duration(last.timings?.training_s)}.`);
  }
  setConnection("ended");
}

/** Returns whether the event changed the curves. */
function takeEvent(event: ServerEvent, store: CurveStore): boolean {
  const data = JSON.parse(event.data) as { rows?: MetricRow[]; after_seq?: number };
  if (event.event === "metrics" && data.rows) store.append(data.rows);
  else if (event.event === "rewind" && data.after_seq !== undefined) store.rewind(data.after_seq);
  else return false;
  return true;
}

/** Returns a function that acts: at once if urgent, else at most once per REFRESH. */
export function paced(act: () => void): (isUrgent: boolean) => void {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const now = () => {
    timer = null;
    act();
  };
  return (isUrgent) => {
    if (isUrgent && timer !== null) clearTimeout(timer);
    if (isUrgent) now();
    else timer ??= setTimeout(now, REFRESH);
  };
}

/** Returns a function that redraws the view, at most once per frame. */
function useDraw(): () => void {
  const [, setFrame] = useState(0);
  const waiting = useRef(false);
  return useCallback(() => {
    if (waiting.current) return;
    waiting.current = true;
    requestAnimationFrame(() => {
      waiting.current = false;
      setFrame((frame) => frame + 1);
    });
  }, []);
}
