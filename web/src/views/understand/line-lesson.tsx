/** Gradient descent on a line: the loss surface with its path, and the loss along one parameter. */

import { useMemo, useState } from "preact/hooks";
import type { Range } from "../../components/charts/axis";
import { axes, Canvas, dot, inside, type Pen, rangeOf, stroke } from "../../components/charts/canvas";
import { Scroll } from "../../components/scroll";
import { count, number } from "../../format";
import { type Line, lineOf, type LineProblem, slopeOf, windowOf } from "../../learning/line";
import type { Shown } from "./shown";
import { drawSurface } from "./surface";
import { configOf, lossName } from "./words";

interface Props extends Shown {
  problem: LineProblem;
}

export function LineLesson({ problem, ...shown }: Props) {
  const { trajectory, subject, place } = shown;
  const path = useMemo(() => trajectory.frames.map((values) => lineOf(subject, values)), [trajectory, subject]);
  const window = useMemo(() => windowOf(problem, [path]), [path, problem]);
  const now = path[place] ?? { w: 0, b: 0 };
  return (
    <div class="halves">
      <section class="card" aria-labelledby="surface">
        <h2 id="surface">Loss surface</h2>
        <Canvas
          height={340}
          label={`The ${lossName(problem.loss)} over w and b. ${sentence(problem, now)}`}
          draw={(pen) => drawSurface(pen, problem, window, path.slice(0, place + 1))}
          inputs={[problem, window, path, place]}
        >
          Each point (w, b) is a line. Contours join lines with equal loss; the cross marks the closed-form optimum, the
          path shows the steps of training.{sampled(shown)}
        </Canvas>
        <LineTable problem={problem} now={now} />
      </section>
      <Slope {...shown} problem={problem} now={now} window={window} />
    </div>
  );
}

/** Notes that the plotted loss is computed on a sample, unlike the training loss. */
function sampled({ subject }: Shown): string {
  const all = subject.rows["train"] ?? 0;
  const used = subject.sample.split.filter((split) => split === "train").length;
  return used < all ? ` The loss is computed on a sample of ${count(used)} of ${count(all)} training rows.` : "";
}

function sentence(problem: LineProblem, now: Line): string {
  const { optimum } = problem;
  const here = `w is ${number(now.w)}, b is ${number(now.b)}, loss ${number(problem.error(now))}.`;
  if (!optimum) return here;
  return `${here} The optimum is at w ${number(optimum.w)}, b ${number(optimum.b)}, loss ${number(problem.error(optimum))}.`;
}

function LineTable({ problem, now }: { problem: LineProblem; now: Line }) {
  const { optimum } = problem;
  const rows: [string, Line][] = [["Current", now]];
  if (optimum) rows.push(["Closed form", optimum]);
  return (
    <Scroll label="Parameters and loss of the line">
      <table>
        <thead>
          <tr>
            <td />
            <th scope="col" class="right">w</th>
            <th scope="col" class="right">b</th>
            <th scope="col" class="right">{lossName(problem.loss)}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, line]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="right">{number(line.w)}</td>
              <td class="right">{number(line.b)}</td>
              <td class="right">{number(problem.error(line))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

interface SlopeProps extends Props {
  now: Line;
  window: { w: Range; b: Range };
}

const OTHER = { w: "b", b: "w" } as const;

function Slope({ problem, now, window, run }: SlopeProps) {
  const [along, setAlong] = useState<"w" | "b">("w");
  const slope = slopeOf(problem, now, along);
  const isFlat = Math.abs(slope) * (window[along][1] - window[along][0]) < 1e-3 * (problem.error(now) + 1e-12);
  const direction = isFlat ? "nearly flat: little improvement is left" : slope > 0 ? `so the next step decreases ${along}` : `so the next step increases ${along}`;
  return (
    <section class="card" aria-labelledby="slope">
      <div class="row apart">
        <h2 id="slope">Loss along {along}</h2>
        <div class="segments" role="group" aria-label="Parameter">
          {(["w", "b"] as const).map((each) => (
            <button key={each} type="button" class="small" aria-pressed={along === each} onClick={() => setAlong(each)}>
              {each}
            </button>
          ))}
        </div>
      </div>
      <Canvas
        height={340}
        label={`The ${lossName(problem.loss)} over ${along}, with ${OTHER[along]} held at ${number(now[OTHER[along]])}. At ${along} = ${number(now[along])} its slope is ${number(slope)}.`}
        draw={(pen) => drawSlope(pen, problem, now, along, window[along])}
        inputs={[problem, now, along, window]}
      >
        Cross-section of the loss surface at {OTHER[along]} = {number(now[OTHER[along]])}; the tangent shows the slope.
      </Canvas>
      <p>
        The slope is <strong>{number(slope)}</strong>, {direction}.
        {isPlain(run) && (
          <>
            {" "}
            The step is −η · slope = <strong>{number(-(configOf(run).optimizer?.learning_rate ?? 0) * slope)}</strong>.
          </>
        )}
      </p>
    </section>
  );
}

/** Whether a step is exactly the learning rate times the slope shown. */
function isPlain(run: Shown["run"]): boolean {
  const { optimizer, batch_size, standardize } = configOf(run);
  const schedule = (run.config["schedule"] as { type?: string } | undefined)?.type ?? "constant";
  return optimizer?.type === "sgd" && !optimizer.momentum && batch_size === "full" && standardize === false && schedule === "constant";
}

const POINTS = 120; // of the curve
const TANGENT = 0.22; // share of the width, to each side

function drawSlope(pen: Pen, problem: LineProblem, now: Line, along: "w" | "b", range: Range): void {
  const { context, palette } = pen;
  const [least, most] = [Math.min(range[0], now[along]), Math.max(range[1], now[along])];
  const at = Array.from({ length: POINTS }, (_, place) => least + ((most - least) * place) / (POINTS - 1));
  const errors = at.map((value) => problem.error({ ...now, [along]: value }));
  const frame = axes(pen, [least, most], rangeOf([0, ...errors]), { x: along, y: lossName(problem.loss) });
  const [here, error, slope] = [now[along], problem.error(now), slopeOf(problem, now, along)];
  inside(pen, frame, () => {
    context.strokeStyle = palette.accent;
    context.lineWidth = 2.5;
    stroke(context, at.map((value, place) => [frame.toX(value), frame.toY(errors[place] ?? 0)]));
    context.strokeStyle = palette.second;
    context.lineWidth = 2;
    const reach = (most - least) * TANGENT;
    const end = (side: number): [number, number] => [frame.toX(here + side * reach), frame.toY(error + side * reach * slope)];
    stroke(context, [end(-1), end(1)]);
    context.strokeStyle = palette.quiet;
    context.lineWidth = 1;
    context.setLineDash([3, 4]);
    stroke(context, [[frame.toX(here), frame.toY(error)], [frame.toX(here), frame.top + frame.height]]);
    context.setLineDash([]);
    context.fillStyle = palette.second;
    dot(context, frame.toX(here), frame.toY(error), 5.5);
  });
}
