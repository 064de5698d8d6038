/** The loss curves of the best members in one plot. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call, getMetrics, type Sweep, type SweepTrial } from "../../api";
import { Frame, pointsOf } from "../../components/charts/frame";
import { linear, numeric } from "../../components/charts/scale";
import { count } from "../../format";
import { type Curve, CurveStore } from "../runs/curve-store";
import type { Marking } from "./marks";

const MOST = 32; // curves
const POINTS = 200; // of each curve
const ROOM = 2; // times the largest first loss, above which a curve that diverges leaves the plot

type Curves = ReadonlyMap<string, Curve>;

export function MemberCurves({ sweep, trials, marking }: { sweep: Sweep; trials: SweepTrial[]; marking: Marking }) {
  const shown = trials.slice(0, MOST);
  const curves = useCurves(sweep, shown);
  const drawn = shown.flatMap((trial) => {
    const curve = curves.get(trial.run ?? "");
    return curve && curve.value.length > 1 ? [{ trial, curve }] : [];
  });
  const [x, y] = useMemo(() => axesOf(drawn.map(({ curve }) => curve)), [curves, shown.length]);
  const marked = drawn.find(({ trial }) => trial.trial === marking.marked) ?? drawn[0];
  const split = drawn[0]?.curve.split ?? sweep.metric.split;
  return (
    <section class="card" aria-labelledby="curves">
      <h2 id="curves">Loss curves</h2>
      <Frame
        x={x}
        y={y}
        xLabel="epoch"
        yLabel={`${split} loss`}
        label={`${split} loss over the epochs of ${count(drawn.length)} trials`}
      >
        {(place) => (
          <>
            {drawn.toReversed().map(({ trial, curve }) => (
              <polyline
                key={trial.trial}
                class="member"
                points={pointsOf(curve.epoch, curve.value, place)}
                style={{ stroke: marking.colorOf(trial) }}
                onMouseEnter={() => marking.mark(trial.trial)}
                onMouseLeave={() => marking.mark(null)}
              />
            ))}
            {marked && (
              <polyline class="member marked" points={pointsOf(marked.curve.epoch, marked.curve.value, place)} />
            )}
          </>
        )}
      </Frame>
      <p class="quiet small">
        {trials.length > MOST && `The best ${MOST} of ${count(trials.length)} trials. `}
        The marked curve is that of trial {marked?.trial.trial ?? "–"}
        {marking.marked === null && ", the best one"}.
      </p>
    </section>
  );
}

function axesOf(curves: Curve[]) {
  const last = Math.max(1, ...curves.map((curve) => curve.epoch.at(-1) ?? 0));
  const first = Math.min(last - 1, ...curves.map((curve) => curve.epoch[0] ?? 0));
  const starts = curves.map((curve) => curve.value[0] ?? NaN).filter(Number.isFinite);
  const most = ROOM * Math.max(...starts);
  const values = curves.flatMap((curve) => curve.value).filter((value) => value <= most);
  return [linear([first, last]), numeric(values)] as const;
}

interface Loaded {
  /** the state and the epochs of the trial when its curve was loaded */
  at: string;
  curve: Curve | undefined;
}

/** Loads the curve of each trial, again after it has trained on. */
function useCurves(sweep: Sweep, trials: SweepTrial[]): Curves {
  const [curves, setCurves] = useState<Curves>(new Map());
  const loaded = useRef(new Map<string, Loaded>());
  const isBusy = useRef(false);
  const abort = useRef(new AbortController());
  const [round, setRound] = useState(0);
  useEffect(() => () => abort.current.abort(), []);
  useEffect(() => {
    const missing = trials.filter(({ run, epochs }) => run && epochs > 0).filter((trial) => !isLoaded(trial, loaded.current));
    if (missing.length === 0 || isBusy.current) return;
    isBusy.current = true;
    const loading = missing.map(async (trial) => {
      const curve = await load(trial.run ?? "", sweep.metric.split, abort.current.signal);
      loaded.current.set(trial.run ?? "", { at: momentOf(trial), curve });
    });
    // One that fails is loaded with the next change of the sweep.
    void Promise.allSettled(loading).then((outcomes) => {
      if (abort.current.signal.aborted) return;
      isBusy.current = false;
      setCurves(new Map([...loaded.current].flatMap(([run, { curve }]) => (curve ? [[run, curve]] : []))));
      if (outcomes.every((each) => each.status === "fulfilled")) setRound((before) => before + 1);
    });
  }, [sweep, round]);
  return curves;
}

function isLoaded(trial: SweepTrial, loaded: Map<string, Loaded>): boolean {
  return loaded.get(trial.run ?? "")?.at === momentOf(trial);
}

function momentOf({ state, epochs }: SweepTrial): string {
  return `${state} ${epochs}`;
}

async function load(run: string, split: string, signal: AbortSignal): Promise<Curve | undefined> {
  const query = { names: "loss", max_points: POINTS, layout: "columns" } as const;
  const page = await call(getMetrics({ path: { run_id: run }, query, signal }));
  const store = new CurveStore();
  store.load(page);
  const curves = store.of("loss");
  return curves.find((curve) => curve.split === split) ?? curves.find((curve) => curve.split === "validation") ?? curves[0];
}
