/** A run that was over in a moment is shown once more, slowly enough to be watched. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Run } from "../../api";
import { hasEnded } from "./live";

const SHORT = 3; // seconds of training, below which there was little to see
const LASTS = 4_000; // milliseconds
const INTERVAL = 80; // milliseconds between two epochs that are shown

/** Returns the epoch up to which a run is to be shown, or null where that is all of it. */
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
      // The first epochs change the most, so they get the most time.
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
