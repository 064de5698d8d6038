/** The predictions at one epoch: a curve over one column, or a heat map over two. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Axis, TrajectorySubject } from "../../api";
import { Canvas } from "../../components/charts/canvas";
import { count, number } from "../../format";
import { along } from "../../learning/slice";
import { drawFit, showsResiduals } from "./fit";
import { drawMap } from "./map";
import { configOf } from "./words";
import type { Shown } from "./shown";

export function Shape({ children, ...shown }: Shown & { children?: ComponentChildren }) {
  const { subject, run } = shown;
  const [first, setFirst] = useState(subject.axes[0]?.column ?? "");
  const [second, setSecond] = useState(subject.axes[1]?.column ?? "");
  const x = subject.axes.find((axis) => axis.column === first);
  const y = subject.axes.find((axis) => axis.column === second && axis.column !== first);
  const features = configOf(run).features?.length ?? subject.axes.length;
  const left = features - (y ? 2 : 1);
  return (
    <section class="card" aria-labelledby="shape">
      <div class="row apart">
        <h2 id="shape">{titleOf(subject, x, y)}</h2>
        <Legend subject={subject} hasMap={y !== undefined} />
      </div>
      {subject.axes.length > 1 && (
        <div class="choice-row">
          <AxisChooser label="X axis" axes={subject.axes} value={first} onValue={setFirst} />
          <AxisChooser label="Y axis" axes={subject.axes} value={second} onValue={setSecond} other={first} />
        </div>
      )}
      {!x && <p class="quiet">No feature is numeric, so there is no axis to plot predictions over.</p>}
      {x && (
        <Canvas
          height={380}
          label={summary(shown, x, y)}
          draw={(pen) => (y ? drawMap(pen, shown, [x, y]) : drawFit(pen, shown, x))}
          inputs={[shown.values, shown.isMoving, x, y]}
        >
          {captionOf(subject, y !== undefined, left)}
        </Canvas>
      )}
      {children}
    </section>
  );
}

function titleOf(subject: TrajectorySubject, x: Axis | undefined, y: Axis | undefined): string {
  if (!x) return "Predictions";
  if (subject.target.classes) return y ? "Decision boundary" : "Class probabilities";
  return y ? "Fitted surface" : subject.line ? "Fitted line" : "Fitted curve";
}

function captionOf(subject: TrajectorySubject, hasMap: boolean, left: number): string {
  const { rows, sample } = subject;
  const all = (rows["train"] ?? 0) + (rows["validation"] ?? 0);
  const parts = [
    (rows["validation"] ?? 0) > 0 ? "Filled points are training rows, open points are validation rows." : "Points are training rows.",
  ];
  if (!subject.target.classes && !hasMap) {
    parts.push("The dashed line is the model before training.");
    if (showsResiduals(subject)) parts.push("Thin lines are residuals.");
  }
  if (sample.x.length < all) parts.push(`${count(sample.x.length)} of ${count(all)} rows are shown.`);
  if (left > 0) {
    const columns = left === 1 ? "other column" : `other ${left} columns`;
    parts.push(`The predictions hold the ${columns} at the mean; the points do not.`);
  }
  return parts.join(" ");
}

interface AxisChooserProps {
  label: string;
  axes: Axis[];
  value: string;
  onValue: (column: string) => void;
  /** the column of the x axis; if set, the y axis may also show the prediction */
  other?: string;
}

function AxisChooser({ label, axes, value, onValue, other }: AxisChooserProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onValue(event.currentTarget.value)}>
        {other !== undefined && <option value="">prediction</option>}
        {axes
          .filter((axis) => axis.column !== other)
          .map((axis) => (
            <option key={axis.column} value={axis.column}>
              {axis.column}
            </option>
          ))}
      </select>
    </label>
  );
}

const MOST = 8; // class colours

function Legend({ subject, hasMap }: { subject: TrajectorySubject; hasMap: boolean }) {
  if (subject.target.classes) {
    return (
      <span class="legend">
        {subject.outputs.slice(0, MOST).map((name, place) => (
          <span key={name} style={{ "--swatch": `var(--class-${place + 1})` }}>
            {name}
          </span>
        ))}
      </span>
    );
  }
  if (!hasMap) return null;
  return (
    <span class="legend">
      <span style={{ "--swatch": "var(--class-1)" }}>low {subject.outputs[0]}</span>
      <span style={{ "--swatch": "var(--class-2)" }}>high {subject.outputs[0]}</span>
    </span>
  );
}

/** Describes the plot for screen readers. */
function summary(shown: Shown, x: Axis, y: Axis | undefined): string {
  const { subject, trajectory, place } = shown;
  const where = `Epoch ${trajectory.epochs[place]}`;
  const ends = [x.min, x.max];
  const answers = along(shown, x, ends);
  const width = subject.outputs.length;
  const points = ends.map((value, row) => {
    const own = [...answers.subarray(row * width, (row + 1) * width)];
    const best = own.indexOf(Math.max(...own));
    const answer = subject.target.classes ? `${subject.outputs[best]} (${number(own[best])})` : number(own[0]);
    return `${x.column} ${number(value)} gives ${answer}`;
  });
  const over = y ? `${subject.outputs.length > 1 ? "the classes" : subject.outputs[0]} over ${x.column} and ${y.column}` : `predictions over ${x.column}`;
  return `${where}: ${over}. ${points.join("; ")}${y ? `, at the mean of ${y.column}` : ""}.`;
}
