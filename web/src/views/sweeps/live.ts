/** A sweep that a view follows: loaded once, then again after its events, and at intervals while members train. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { call, getSweep, type Sweep } from "../../api";
import { number } from "../../format";
import { announce } from "../../news";
import { useInterval } from "../../resource";
import { BASE, onSession } from "../../session";
import { follow } from "../../stream";
import { paced } from "../runs/live";

export interface LiveSweep {
  sweep: Sweep | null;
  connection: "open" | "waiting";
  error: unknown;
  setSweep: (sweep: Sweep) => void;
  reload: () => void;
}

const ENDED = new Set<Sweep["state"]>(["succeeded", "failed", "cancelled"]);
const REFRESH = 2; // seconds; the stream has no event for an epoch of a member

export function hasEnded(sweep: Sweep): boolean {
  return ENDED.has(sweep.state);
}

export function useLiveSweep(id: string): LiveSweep {
  const [sweep, setSweep] = useState<Sweep | null>(null);
  const [connection, setConnection] = useState<LiveSweep["connection"]>("open");
  const [error, setError] = useState<unknown>(null);
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((count) => count + 1), []);
  const load = (signal?: AbortSignal) => call(getSweep({ path: { sweep_id: id }, signal }));

  useEffect(() => onSession(reload), [reload]);
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    setError(null);
    // After a failure the next event tries again; the end loads the final state itself.
    const look = paced(() => load(signal).then(setSweep, () => undefined));
    const watch = async () => {
      const first = await load(signal);
      setSweep(first);
      if (hasEnded(first)) return;
      await follow({
        url: `${BASE}/api/v1/sweeps/${encodeURIComponent(id)}/events`,
        signal,
        onEvent: (event) => look(event.event === "state"),
        onState: setConnection,
      });
      if (signal.aborted) return;
      const last = await load(signal);
      setSweep(last);
      announce(`The sweep has ${last.state}. ${bestOf(last)}`);
    };
    watch().catch((refused: unknown) => {
      if (!signal.aborted) setError(refused);
    });
    return () => abort.abort();
  }, [id, round]);
  const isTraining = sweep !== null && sweep.trials.running > 0;
  useInterval(() => void load().then(setSweep, () => undefined), isTraining ? REFRESH : null);
  return { sweep, connection, error, setSweep, reload };
}

function bestOf({ best, metric }: Sweep): string {
  return best ? `Trial ${best.trial} is the best: ${metric.name} ${number(best.value)}.` : "";
}
