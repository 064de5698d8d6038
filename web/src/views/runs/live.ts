/** A run while it is looked at: loaded once, then kept up to date by its stream of events. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { call, getMetrics, getRun, type MetricRow, type Run } from "../../api";
import { duration } from "../../format";
import { announce } from "../../news";
import { BASE, onSession } from "../../session";
import { follow, type ServerEvent } from "../../stream";
import { CurveStore } from "./curve-store";

export const MAX_POINTS = 2_400; // of each curve: two for each pixel of a wide plot
const ENDED = new Set<Run["state"]>(["succeeded", "failed", "cancelled"]);
const LOOK_AGAIN = 400; // milliseconds between two looks at the progress while rows come

export interface Live {
  run: Run | null;
  curves: CurveStore;
  /** counts what may have changed beside the curves: checkpoints, log */
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
    const look = pacedLook(id, abort.signal, setRun);
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

/** Returns a function that looks at the run: at once where its state changed, else now and then. */
function pacedLook(id: string, signal: AbortSignal, setRun: (run: Run) => void) {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const look = () => {
    timer = null;
    // What fails here is tried again with the next event; the end is looked at apart.
    call(getRun({ path: { run_id: id }, signal })).then(setRun, () => undefined);
  };
  return (isUrgent: boolean) => {
    if (isUrgent && timer !== null) clearTimeout(timer);
    if (isUrgent) look();
    else timer ??= setTimeout(look, LOOK_AGAIN);
  };
}

/** Returns a function that draws the view anew, at most once a frame. */
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
