/** Compares runs in one plot and one table with their metrics and differing settings. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call, getMetrics, getRun, type Run } from "../../api";
import { type PlotLine, Plot } from "../../components/charts/plot";
import { Failure } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { RunState } from "../../components/state";
import { duration, number } from "../../format";
import { metricTitle } from "../../metrics";
import { useResource } from "../../resource";
import { href } from "../../router";
import { type Axis, CurveStore } from "./curve-store";
import { hasEnded } from "./live";
import { smoothed } from "./smooth";
import { titleOf } from "./title";

interface Compared {
  run: Run;
  store: CurveStore;
}

const COLORS = ["--accent", "--second", "--good", "--line-4", "--line-5", "--line-6", "--line-7", "--line-8"];
const POINTS = 1_500; // of each curve

export function Compare({ ids }: { ids: string[] }) {
  const known = useRef(new Map<string, Compared>());
  const loaded = useResource(
    (signal) => Promise.all(ids.map((id) => load(id, known.current, signal))),
    [ids.join()],
  );
  return (
    <>
      <div>
        <p class="quiet">
          <a href={href("runs")}>Runs</a>
        </p>
        <h1>Compare runs</h1>
      </div>
      {loaded.error !== null && <Failure error={loaded.error} retry={loaded.reload} />}
      {loaded.data && <Comparison compared={loaded.data} onReload={loaded.reload} />}
    </>
  );
}

/** Loads a run and its curves; a run that has ended is not loaded again. */
async function load(id: string, known: Map<string, Compared>, signal: AbortSignal): Promise<Compared> {
  const before = known.get(id);
  if (before && hasEnded(before.run)) return before;
  const path = { run_id: id };
  const query = { max_points: POINTS, layout: "columns" } as const;
  const run = await call(getRun({ path, signal })); // before the metrics, so that the curve of an ended run is complete
  const page = await call(getMetrics({ path, query, signal }));
  const store = new CurveStore();
  store.load(page);
  known.set(id, { run, store });
  return { run, store };
}

function Comparison({ compared, onReload }: { compared: Compared[]; onReload: () => void }) {
  const [axis, setAxis] = useState<Axis>("epoch");
  const [isLog, setLog] = useState(false);
  const [weight, setWeight] = useState(0);
  const [split, setSplit] = useState("validation");
  const isGoing = compared.some(({ run }) => run.finished_at === null);
  useEffect(() => {
    if (!isGoing) return undefined;
    const timer = setTimeout(onReload, 2000);
    return () => clearTimeout(timer);
  }, [compared, isGoing]);
  const lines = useMemo(
    () => compared.flatMap((each, place) => plotLines(each, place, { axis, weight, split })),
    [compared, axis, weight, split],
  );
  return (
    <>
      <section class="card" aria-labelledby="curves">
        <div class="row apart">
          <h2 id="curves">Loss curves</h2>
          <div class="row settings">
            <label class="check">
              Smoothing
              <input
                type="range"
                min="0"
                max="0.99"
                step="0.01"
                value={weight}
                onInput={(event) => setWeight(Number(event.currentTarget.value))}
              />
            </label>
            <button type="button" class="small" aria-pressed={isLog} onClick={() => setLog(!isLog)}>
              Log scale
            </button>
            <Segments label="Split" values={["validation", "train"]} value={split} onValue={setSplit} />
            <Segments
              label="X axis"
              values={["epoch", "step", "time"]}
              value={axis}
              onValue={(next) => setAxis(next as Axis)}
            />
          </div>
        </div>
        <Plot
          lines={lines}
          xLabel={axis === "time" ? "seconds" : axis}
          yLabel={`${split} loss`}
          isLog={isLog}
          label={`Plot of the ${split} loss of ${compared.length} runs`}
        />
      </section>
      <ComparisonTable compared={compared} />
    </>
  );
}

interface SegmentsProps {
  label: string;
  values: string[];
  value: string;
  onValue: (value: string) => void;
}

function Segments({ label, values, value, onValue }: SegmentsProps) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {values.map((each) => (
        <button
          key={each}
          type="button"
          class="small"
          aria-pressed={value === each}
          onClick={() => onValue(each)}
        >
          {each}
        </button>
      ))}
    </div>
  );
}

function plotLines(
  { run, store }: Compared,
  place: number,
  { axis, weight, split }: { axis: Axis; weight: number; split: string },
): PlotLine[] {
  const found = store.of("loss");
  const curve = found.find((each) => each.split === split) ?? found[0];
  if (!curve) return [];
  const color = COLORS[place % COLORS.length] ?? "--quiet";
  const label = curve.split === split ? titleOf(run) : `${titleOf(run)} (${curve.split})`;
  return [{ label, x: curve[axis], y: smoothed(curve.value, weight), color }];
}

function ComparisonTable({ compared }: { compared: Compared[] }) {
  const settings = useMemo(() => differing(compared.map(({ run }) => run)), [compared]);
  return (
    <section class="card" aria-labelledby="table">
      <h2 id="table">Metrics and settings</h2>
      <Scroll label="Table of metrics and settings">
        <table>
          <thead>
            <tr>
              <td />
              {compared.map(({ run }, place) => (
                <th scope="col" key={run.id}>
                  <span class="swatch" style={{ background: `var(${COLORS[place % COLORS.length]})` }} />{" "}
                  <a href={href("runs", run.id)}>{titleOf(run)}</a>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">State</th>
              {compared.map(({ run }) => (
                <td key={run.id}>
                  <RunState run={run} />
                </td>
              ))}
            </tr>
            {ROWS.map(([title, value]) => (
              <tr key={title}>
                <th scope="row">{title}</th>
                {compared.map(({ run }) => (
                  <td key={run.id}>{value(run)}</td>
                ))}
              </tr>
            ))}
            {settings.map(([name, values]) => (
              <tr key={name}>
                <th scope="row">
                  <code>{name}</code>
                </th>
                {values.map((value, place) => (
                  <td key={compared[place]?.run.id}>
                    <code>{value}</code>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

const ROWS: [string, (run: Run) => string][] = [
  ["Best loss", (run) => (run.best ? `${number(run.best.value)} (${run.best.split})` : "–")],
  ["Best epoch", (run) => String(run.best?.epoch ?? "–")],
  ["Training time", (run) => duration(run.timings?.training_s)],
  ...["accuracy", "r2", "rmse"].map((name): [string, (run: Run) => string] => [
    `${metricTitle(name)} (validation)`,
    (run) => {
      const splits = run.evaluation as Record<string, Record<string, unknown> | undefined> | null | undefined;
      return number(splits?.["validation"]?.[name]);
    },
  ]),
];

/** Returns the settings that differ between the runs, with the value of each run. */
function differing(runs: Run[]): [string, string[]][] {
  const flat = runs.map((run) => new Map(leaves("", run.config)));
  const names = [...new Set(flat.flatMap((each) => [...each.keys()]))];
  return names
    .map((name): [string, string[]] => [name, flat.map((each) => each.get(name) ?? "–")])
    .filter(([, values]) => new Set(values).size > 1);
}

function leaves(prefix: string, value: unknown): [string, string][] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return [[prefix, JSON.stringify(value)]];
  }
  return Object.entries(value).flatMap(([name, part]) => leaves(prefix ? `${prefix}.${name}` : name, part));
}
