/** Lines over a common x axis, drawn by uPlot: hover, zoom and pan by mouse, wheel, keys and buttons. */

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { number, tick } from "../../format";
import type { Range } from "./axis";
import { gestures, panned, zoomed } from "./gestures";

export interface PlotLine {
  label: string;
  x: number[];
  /** NaN draws nothing */
  y: number[];
  /** a variable of the style sheet */
  color: string;
  isFaint?: boolean;
  isDashed?: boolean;
}

interface Props {
  lines: PlotLine[];
  xLabel: string;
  yLabel: string;
  isLog?: boolean;
  /** changes whenever the content of the arrays changes */
  version?: number;
  label: string;
  height?: number;
  onRange?: (range: Range | null) => void;
}

export function Plot(props: Props) {
  const { lines, isLog = false, version = 0, label, height = 340 } = props;
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const range = useRef<Range | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [isZoomed, setZoomed] = useState(false);
  const look = useLook();
  const shape = lines.map((line) => `${line.label}${line.color}${line.isFaint}${line.isDashed}`);
  const kind = [...shape, isLog, props.xLabel, look].join("|");

  // A zoom or pan redraws at once; `onRange` is called once it has ended.
  const pending = useRef<ReturnType<typeof setTimeout>>(undefined);
  const show = (next: Range | null) => {
    range.current = next;
    setZoomed(next !== null);
    if (chart.current) move(chart.current, latest.current, next);
    clearTimeout(pending.current);
    pending.current = setTimeout(() => latest.current.onRange?.(next), 120);
  };

  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const plot = new uPlot(options(latest.current, element, show), dataOf(latest.current), element);
    chart.current = plot;
    draw(plot, latest.current, range.current);
    const stop = gestures(plot, show);
    plot.over.addEventListener("mouseleave", () => showLastValues(plot));
    const observer = new ResizeObserver(() => {
      plot.setSize({ width: element.clientWidth, height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      stop();
      plot.destroy();
      chart.current = null;
    };
  }, [kind]);

  useEffect(() => {
    if (chart.current) draw(chart.current, latest.current, range.current);
  }, [version, lines]);

  const act = (change: (range: Range, whole: Range) => Range | null) => {
    const whole = extent(latest.current.lines);
    if (whole) show(change(range.current ?? whole, whole));
  };

  return (
    <div
      class="plot"
      role="group"
      aria-label={label}
      tabIndex={0}
      onKeyDown={(event) => {
        const change = KEYS[event.key];
        if (!change) return;
        event.preventDefault();
        act(change);
      }}
    >
      <div class="plot-area" ref={place} style={{ minHeight: `${height + LEGEND}px` }} />
      {lines.every((line) => line.x.length === 0) && (
        <p class="quiet nothing">The curve appears with the first values.</p>
      )}
      <div class="plot-tools">
        <button type="button" class="small" aria-label="Zoom in" onClick={() => act(KEYS["+"]!)}>
          +
        </button>
        <button type="button" class="small" aria-label="Zoom out" onClick={() => act(KEYS["-"]!)}>
          −
        </button>
        <button type="button" class="small" disabled={!isZoomed} onClick={() => show(null)}>
          Reset
        </button>
      </div>
    </div>
  );
}

const LEGEND = 34; // pixels of uPlot's legend with values, below the plot

const KEYS: Record<string, (range: Range, whole: Range) => Range | null> = {
  "+": (range, whole) => zoomed(range, whole, 0.5, 0.5),
  "=": (range, whole) => zoomed(range, whole, 0.5, 0.5),
  "-": (range, whole) => zoomed(range, whole, 2, 0.5),
  ArrowLeft: (range, whole) => panned(range, whole, -0.1),
  ArrowRight: (range, whole) => panned(range, whole, 0.1),
  Escape: () => null,
  "0": () => null,
};

function draw(plot: uPlot, props: Props, range: Range | null): void {
  plot.batch(() => {
    plot.setData(dataOf(props), false);
    move(plot, props, range);
  });
  showLastValues(plot);
}

function move(plot: uPlot, props: Props, range: Range | null): void {
  const shown = range ?? extent(props.lines);
  if (shown) plot.setScale("x", { min: shown[0], max: shown[1] });
}

/** While the pointer is outside, the legend shows the last values. */
function showLastValues(plot: uPlot): void {
  const { left } = plot.cursor;
  if (left !== undefined && left >= 0) return;
  plot.setLegend({ idx: Math.max(0, plot.data[0].length - 1) });
}

/** Aligns the lines on one x axis; a line without a point there has null and is drawn across the gap. */
function dataOf({ lines, isLog }: Props): uPlot.AlignedData {
  if (lines.length === 0) return [[]];
  const tables = lines.map((line): uPlot.AlignedData => [line.x, line.y.map((y) => drawable(y, isLog))]);
  return uPlot.join(tables);
}

function drawable(y: number, isLog: boolean | undefined): number | null {
  return !Number.isFinite(y) || (isLog && y <= 0) ? null : y;
}

function extent(lines: PlotLine[]): Range | null {
  const firsts = lines.flatMap((line) => line.x.slice(0, 1));
  const lasts = lines.flatMap((line) => line.x.slice(-1));
  if (firsts.length === 0) return null;
  const [min, max] = [Math.min(...firsts), Math.max(...lasts)];
  return min === max ? [min - 0.5, max + 0.5] : [min, max];
}

function options(props: Props, element: HTMLElement, show: (range: Range) => void): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: color("--quiet"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1 },
    font: `12px ${style.fontFamily}`,
    labelFont: `12px ${style.fontFamily}`,
    labelSize: 22,
  };
  return {
    width: element.clientWidth,
    height: props.height ?? 340,
    padding: [12, 22, 0, 0],
    scales: {
      x: { time: false },
      y: { distr: props.isLog ? 3 : 1 },
    },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
    select: { show: true, left: 0, top: 0, width: 0, height: 0 },
    axes: [
      { ...axis, label: props.xLabel, values: tickLabels },
      { ...axis, label: props.yLabel, size: 62, values: tickLabels },
    ],
    series: [
      { label: props.xLabel, value: (_plot, x: number | null) => (x === null ? "–" : number(x)) },
      ...props.lines.map((line) => ({
        label: line.label,
        stroke: color(line.color),
        width: line.isFaint ? 1 : 2,
        alpha: line.isFaint ? 0.3 : 1,
        dash: line.isDashed ? [5, 4] : [],
        spanGaps: true,
        points: { show: line.x.length < 2 },
        value: (_plot: uPlot, y: number | null) => (y === null ? "–" : number(y)),
      })),
    ],
    hooks: {
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width < 4) return;
          show([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

function tickLabels(_plot: uPlot, values: (number | null)[]): string[] {
  return values.map((value) => (value === null ? "" : tick(value)));
}

/** Whether the colour scheme is dark: the canvas needs a redraw when it changes. */
function useLook(): boolean {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const update = () => setDark(query.matches);
    query.addEventListener("change", update);
    return () => query.removeEventListener("change", update);
  }, []);
  return isDark;
}
