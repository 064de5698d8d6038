/** Metric curves of a run: per split, linear or logarithmic, raw or smoothed. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { call, getMetrics, type MetricColumns } from "../../api";
import type { Range } from "../../components/charts/axis";
import { type PlotLine, Plot } from "../../components/charts/plot";
import { number } from "../../format";
import { metricTitle } from "../../metrics";
import { AXES, type Axis, type Curve, CurveStore, cut } from "./curve-store";
import { smoothed } from "./smooth";
import { ValueTable } from "./values";

const COLORS: Record<string, string> = {
  train: "--accent",
  validation: "--second",
  test: "--good",
};

interface Props {
  runId: string;
  store: CurveStore;
  version: number;
  /** the last epoch to show; null shows all */
  until: number | null;
  /** note below the curves */
  children: ComponentChildren;
}

export function Curves({ runId, store, version, until, children }: Props) {
  const [axis, setAxis] = useState<Axis>("epoch");
  const [isLog, setLog] = useState(false);
  const [weight, setWeight] = useState(0);
  const [chosen, choose] = useState("loss");
  const [range, setRange] = useState<Range | null>(null);
  const names = store.names();
  const name = names.includes(chosen) ? chosen : (names[0] ?? "loss");
  const close = useCloseUp(runId, store, name, axis, range);
  const curves = useMemo(
    () => (close ?? store.of(name)).map((curve) => (until === null ? curve : cut(curve, until))),
    [close, version, name, until],
  );
  const lines = useMemo(() => linesOf(curves, axis, weight), [curves, axis, weight]);
  return (
    <section class="card" aria-labelledby="curves">
      <div class="row apart">
        <h2 id="curves">{name === "loss" ? "Loss curves" : metricTitle(name)}</h2>
        <Settings
          {...{ axis, setAxis, isLog, setLog, weight, setWeight, names, name, choose }}
        />
      </div>
      <Plot
        lines={lines}
        xLabel={AXES[axis]}
        yLabel={name}
        isLog={isLog}
        version={version}
        label={summary(curves, name)}
        onRange={setRange}
      />
      <p class="quiet small">
        Drag to zoom, Shift + drag to pan, double-click to reset. Keys: + − ← → and Escape.
        {store.isDownsampled &&
          (close ? " All points of this range are shown." : " The curve is downsampled: zoom in to see all points.")}
        {children}
      </p>
      <ValueTable curves={curves} axis={axis} stem={`${runId}-${name}`} />
    </section>
  );
}

interface SettingsProps {
  axis: Axis;
  setAxis: (axis: Axis) => void;
  isLog: boolean;
  setLog: (isLog: boolean) => void;
  weight: number;
  setWeight: (weight: number) => void;
  names: string[];
  name: string;
  choose: (name: string) => void;
}

function Settings(props: SettingsProps) {
  const { axis, setAxis, isLog, setLog, weight, setWeight, names, name, choose } = props;
  return (
    <div class="row settings">
      {names.length > 1 && (
        <select aria-label="Metric" value={name} onChange={(event) => choose(event.currentTarget.value)}>
          {names.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      )}
      <label class="check">
        Smoothing
        <input
          type="range"
          min="0"
          max="0.99"
          step="0.01"
          value={weight}
          aria-valuetext={weight === 0 ? "off" : String(weight)}
          onInput={(event) => setWeight(Number(event.currentTarget.value))}
        />
      </label>
      <button type="button" class="small" aria-pressed={isLog} onClick={() => setLog(!isLog)}>
        Log scale
      </button>
      <div class="segments" role="group" aria-label="X axis">
        {(Object.keys(AXES) as Axis[]).map((each) => (
          <button
            key={each}
            type="button"
            class="small"
            aria-pressed={axis === each}
            onClick={() => setAxis(each)}
          >
            {each}
          </button>
        ))}
      </div>
    </div>
  );
}

export function linesOf(curves: Curve[], axis: Axis, weight: number): PlotLine[] {
  return curves.flatMap((curve): PlotLine[] => {
    const color = COLORS[curve.split] ?? "--quiet";
    const raw = { label: curve.split, x: curve[axis], y: curve.value, color };
    if (weight === 0) return [raw];
    const line = { ...raw, y: smoothed(curve.value, weight) };
    return [{ ...raw, label: `${curve.split} (raw)`, isFaint: true }, line];
  });
}

const CLOSE = 9_000; // rows; a shorter range is loaded without downsampling

/** Loads every row of the visible range of a downsampled curve, once the range is short enough. */
function useCloseUp(
  runId: string,
  store: CurveStore,
  name: string,
  axis: Axis,
  range: Range | null,
): Curve[] | null {
  const [close, setClose] = useState<Curve[] | null>(null);
  const bounds = range && store.isDownsampled ? boundsOf(store.of(name), axis, range) : null;
  const isClose = bounds !== null && bounds[1] - bounds[0] <= CLOSE;
  const key = isClose ? bounds.join(" ") : "";
  useEffect(() => {
    if (!key || !bounds) {
      setClose(null);
      return undefined;
    }
    const abort = new AbortController();
    const query = { after: bounds[0], limit: CLOSE + 2, names: name, layout: "columns" } as const;
    const timer = setTimeout(() => {
      call(getMetrics({ path: { run_id: runId }, query, signal: abort.signal })).then(
        (page) => {
          const part = new CurveStore();
          const rows = page.data as MetricColumns;
          if (rows.seq.length > 0) part.load(page);
          setClose(part.of(name));
        },
        () => undefined, // keep the downsampled curve
      );
    }, 150);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [runId, key, name]);
  return isClose ? close : null;
}

/** Returns the sequence numbers of the rows just outside the range. */
function boundsOf(curves: Curve[], axis: Axis, range: Range): [number, number] | null {
  let [first, last] = [Number.POSITIVE_INFINITY, 0];
  for (const curve of curves) {
    const xs = curve[axis];
    const from = xs.findLastIndex((x) => x < range[0]);
    const to = xs.findIndex((x) => x > range[1]);
    first = Math.min(first, curve.seq[from] ?? 0);
    last = Math.max(last, curve.seq[to] ?? curve.seq.at(-1) ?? 0);
  }
  return last > first ? [Math.max(0, first - 1), last] : null;
}

function summary(curves: Curve[], name: string): string {
  const parts = curves.map((curve) => {
    const [first, last] = [curve.value[0], curve.value.at(-1)];
    return `${curve.split} from ${number(first)} to ${number(last)}`;
  });
  return `Plot of ${name}: ${parts.join("; ") || "no values yet"}`;
}
