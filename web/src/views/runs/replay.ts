/** Replays a very short run in slow motion, so that its curves can be watched. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Run } from "../../api";
import { hasEnded } from "./live";

const SHORT = 3; // seconds of training; a shorter run is replayed
const LASTS = 4_000; // milliseconds of the replay
const INTERVAL = 80; // milliseconds between two frames

/** Returns the last epoch to show, or null to show the whole run. */
export function useReplay(run: Run | null): number | null {
  const [epoch, setEpoch] = useState<number | null>(null);
  const wasLive = useRef(false);
  const isOver = run !== null && hasEnded(run);
  if (run !== null && !isOver) wasLive.current = true;
  const isShown = isOver && wasLive.current && isShort(run);
  useEffect(() => {
    if (!isShown || matchMedia("(prefers-reduced-motion: reduce)").matches) return undefined;
    const [began, last] = [performance.now(), run.progress?.epoch ?? 0];
    setEpoch(0);
    const timer = setInterval(() => {
      const share = (performance.now() - began) / LASTS;
      // The first epochs change most, so they get most of the time.
      setEpoch(share < 1 ? Math.floor(share ** 2 * last) : null);
      if (share >= 1) clearInterval(timer);
    }, INTERVAL);
    return () => clearInterval(timer);
  }, [isShown]);
  return epoch;
}

function isShort(run: Run): boolean {
  return run.state === "succeeded" && (run.timings?.training_s ?? SHORT) < SHORT;
}
