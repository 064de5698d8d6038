/** Gradient descent on a line: the error surface with the way down, and the error over one number. */

import { useMemo, useState } from "preact/hooks";
import { axes, Canvas, dot, inside, type Pen, type Range, rangeOf, stroke } from "../../components/charts/canvas";
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
        <h2 id="surface">The error surface</h2>
        <Canvas
          height={340}
          label={`The ${lossName(problem.loss)} over w and b. ${sentence(problem, now)}`}
          draw={(pen) => drawSurface(pen, problem, window, path.slice(0, place + 1))}
          inputs={[problem, window, path, place]}
        >
          Each point of this plane is a line. Rings join lines with the same error; the cross is the closed-form
          optimum, the path is the way that training took.{sampled(shown)}
        </Canvas>
        <LineTable problem={problem} now={now} />
      </section>
      <Slope {...shown} problem={problem} now={now} window={window} />
    </div>
  );
}

/** Says where the error is not the one that training went down. */
function sampled({ subject }: Shown): string {
  const all = subject.rows["train"] ?? 0;
  const used = subject.sample.split.filter((split) => split === "train").length;
  return used < all ? ` The error is computed over a sample of ${count(used)} of the ${count(all)} training rows.` : "";
}

function sentence(problem: LineProblem, now: Line): string {
  const { optimum } = problem;
  const here = `w is ${number(now.w)}, b is ${number(now.b)}, error ${number(problem.error(now))}.`;
  if (!optimum) return here;
  return `${here} The optimum is at w ${number(optimum.w)}, b ${number(optimum.b)}, error ${number(problem.error(optimum))}.`;
}

function LineTable({ problem, now }: { problem: LineProblem; now: Line }) {
  const { optimum } = problem;
  const rows: [string, Line][] = [["Now", now]];
  if (optimum) rows.push(["Closed form", optimum]);
  return (
    <Scroll label="Numbers of the line">
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
  const way = isFlat ? "nearly flat: there is little left to gain" : slope > 0 ? "uphill: the next step goes to the left" : "downhill: the next step goes to the right";
  return (
    <section class="card" aria-labelledby="slope">
      <div class="row apart">
        <h2 id="slope">The error over {along}</h2>
        <div class="segments" role="group" aria-label="Number that varies">
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
        The curve is a cut through the surface where {OTHER[along]} = {number(now[OTHER[along]])}; the tangent shows its
        slope.
      </Canvas>
      <p>
        Here the slope is <strong>{number(slope)}</strong>, {way}.
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

/** Whether a step is nothing but the learning rate times the slope that is shown. */
function isPlain(run: Shown["run"]): boolean {
  const { optimizer, batch_size, standardize } = configOf(run);
  const schedule = (run.config["schedule"] as { type?: string } | undefined)?.type ?? "constant";
  return optimizer?.type === "sgd" && !optimizer.momentum && batch_size === "full" && standardize === false && schedule === "constant";
}

const POINTS = 120; // of the curve
const TANGENT = 0.22; // of the width, to each side

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
