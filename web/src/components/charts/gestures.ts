/** Zoom and pan of a plot: the wheel zooms around the pointer, shift and drag or a sideways wheel pans. */

import type uPlot from "uplot";
import type { Range } from "./axis";

/** Scales the width of the range by `factor` around the point `at` (0 to 1); null is the whole range. */
export function zoomed(range: Range, whole: Range, factor: number, at: number): Range | null {
  const width = range[1] - range[0];
  const next = width * factor;
  if (next >= whole[1] - whole[0]) return null;
  return inside(range[0] + (width - next) * at, next, whole);
}

/** Moves the range by a share of its width. */
export function panned(range: Range, whole: Range, share: number): Range {
  const width = range[1] - range[0];
  return inside(range[0] + width * share, width, whole);
}

function inside(start: number, width: number, whole: Range): Range {
  const first = Math.max(whole[0], Math.min(start, whole[1] - width));
  return [first, first + width];
}

export function gestures(plot: uPlot, show: (range: Range | null) => void): () => void {
  const over = plot.over;
  const current = (): Range => [plot.scales["x"]?.min ?? 0, plot.scales["x"]?.max ?? 1];
  const whole = (): Range => {
    const x = plot.data[0];
    return [Number(x[0] ?? 0), Number(x[x.length - 1] ?? 1)];
  };
  const wheel = (event: WheelEvent) => {
    if (!event.ctrlKey && !event.shiftKey && event.deltaX === 0 && !plot.root.contains(document.activeElement)) {
      return; // without the focus, the wheel scrolls the page
    }
    event.preventDefault();
    if (event.deltaX !== 0 || event.shiftKey) {
      const by = (event.deltaX || event.deltaY) / over.clientWidth;
      show(panned(current(), whole(), by));
    } else {
      const at = event.offsetX / over.clientWidth;
      show(zoomed(current(), whole(), event.deltaY > 0 ? 1.25 : 0.8, at));
    }
  };
  const press = (event: MouseEvent) => {
    if (!event.shiftKey || event.button !== 0) return;
    event.stopImmediatePropagation(); // keeps uPlot from drawing a selection
    const [start, range] = [event.clientX, current()];
    const move = (moved: MouseEvent) => {
      show(panned(range, whole(), (start - moved.clientX) / over.clientWidth));
    };
    const end = () => {
      removeEventListener("mousemove", move);
      removeEventListener("mouseup", end);
    };
    addEventListener("mousemove", move);
    addEventListener("mouseup", end);
  };
  const reset = () => show(null);
  over.addEventListener("wheel", wheel, { passive: false });
  over.addEventListener("mousedown", press, { capture: true });
  over.addEventListener("dblclick", reset);
  return () => {
    over.removeEventListener("wheel", wheel);
    over.removeEventListener("mousedown", press, { capture: true });
    over.removeEventListener("dblclick", reset);
  };
}
