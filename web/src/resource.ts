/** Data that a view loads: loaded, loading, or failed. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { onSession } from "./session";

export interface Resource<T> {
  data: T | null;
  error: unknown;
  isLoading: boolean;
  /** Loads again; the current data stays until the new data arrives. */
  reload: () => void;
  set: (data: T) => void;
}

type Load<T> = (signal: AbortSignal) => Promise<T>;

/** Loads when the view appears, when one of `inputs` changes, and when the API key changes. */
export function useResource<T>(load: Load<T>, inputs: readonly unknown[]): Resource<T> {
  const [state, setState] = useState<Omit<Resource<T>, "reload" | "set">>(EMPTY);
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(() => setRound((count) => count + 1), []);
  const set = useCallback((data: T) => setState({ data, error: null, isLoading: false }), []);

  useEffect(() => onSession(reload), [reload]);
  useEffect(() => setState(EMPTY), inputs);
  useEffect(() => {
    const abort = new AbortController();
    latest.current(abort.signal).then(
      (data) => {
        if (!abort.signal.aborted) set(data);
      },
      (error: unknown) => {
        if (!abort.signal.aborted) setState((old) => ({ ...old, error, isLoading: false }));
      },
    );
    return () => abort.abort();
  }, [round, set, ...inputs]);
  return { ...state, reload, set };
}

/** Loads again whenever the count changes. */
export function useReloadOn(count: number, reload: () => void): void {
  const seen = useRef(count);
  useEffect(() => {
    if (seen.current !== count) reload();
    seen.current = count;
  }, [count, reload]);
}

/** Calls `act` at this interval while the page is visible; null stops it. */
export function useInterval(act: () => void, seconds: number | null): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (seconds === null) return undefined;
    const tick = () => {
      if (document.visibilityState === "visible") latest.current();
    };
    const timer = setInterval(tick, seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
}

const EMPTY = { data: null, error: null, isLoading: true } as const;
