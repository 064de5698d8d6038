/** Each layer at one epoch: its weights as a heat map, and histograms of its weights and activations. */

import { useMemo } from "preact/hooks";
import type { Range } from "../../components/charts/axis";
import { axes, Canvas, channels, inside, type Pen, rangeOf } from "../../components/charts/canvas";
import { count, counted, number, percent } from "../../format";
import { type LinearStep, type Net, trace } from "../../learning/net";
import type { Shown } from "./shown";

interface LayerView {
  step: LinearStep;
  name: string;
  activation: string | null;
  weights: Float32Array;
  biases: Float32Array;
  /** activations of the layer, (rows, units) flattened */
  activations: Float32Array;
}

const ROWS = 200; // for which activations are computed

export function Layers({ subject, net, values, trajectory, place }: Shown) {
  const x = useMemo(() => {
    const rows = subject.sample.x.slice(0, ROWS);
    return { values: Float32Array.from(rows.flat()), rows: rows.length };
  }, [subject]);
  const layers = useMemo(() => layersOf(net, values, x.values, x.rows), [net, values, x]);
  return (
    <section class="card" aria-labelledby="layers">
      <div class="row apart">
        <h2 id="layers">Weights and activations</h2>
        <span class="quiet small">
          epoch {count(trajectory.epochs[place])} · {counted(values.length, "parameter")} · {counted(x.rows, "row")}
        </span>
      </div>
      {layers.map((layer) => (
        <LayerCard key={layer.step.weight} layer={layer} columns={layer.step.weight === 0 ? subject.labels : null} />
      ))}
    </section>
  );
}

function layersOf(net: Net, values: Float32Array, x: Float32Array, rows: number): LayerView[] {
  const outputs = trace(net, values, x, rows);
  const hidden = net.steps.filter((step) => step.kind === "linear").length - 1;
  let index = 0;
  return net.steps.flatMap((step, place) => {
    if (step.kind !== "linear") return [];
    const after = net.steps.findIndex((each) => each.kind === "activation" && each.reads[0] === place + 1);
    const next = net.steps[after];
    const activation = next?.kind === "activation" ? next.name : null;
    const name = index < hidden ? `Layer ${index + 1}` : "Output";
    index++;
    return [
      {
        step,
        name,
        activation,
        weights: values.subarray(step.weight, step.weight + step.inputs * step.outputs),
        biases: values.subarray(step.bias, step.bias + step.outputs),
        activations: outputs[activation ? after : place] ?? new Float32Array(),
      },
    ];
  });
}

function LayerCard({ layer, columns }: { layer: LayerView; columns: string[] | null }) {
  const { step, name, activation, weights, biases, activations } = layer;
  const [low, high] = extent(weights);
  const inputs = columns && columns.length <= 6 ? columns.join(", ") : `${step.inputs} inputs`;
  return (
    <div class="stack layer">
      <h3>
        {name}: {inputs} → {counted(step.outputs, "unit")}
        {activation && `, ${activation}`}
      </h3>
      <div class="layer-grid">
        <Canvas
          height={Math.min(190, Math.max(70, 26 * step.outputs + 30))}
          label={`Weights of ${name}, from ${number(low)} to ${number(high)}; biases from ${extent(biases).map(number).join(" to ")}.`}
          draw={(pen) => drawWeights(pen, layer)}
          inputs={[weights, biases]}
        >
          Weights: one row per unit, one column per input, biases on the right. Stronger colours mean larger values.
        </Canvas>
        <Canvas
          height={150}
          label={`Histogram of the weights of ${name}, from ${number(low)} to ${number(high)}.`}
          draw={(pen) => drawHistogram(pen, weights, "weight", pen.palette.accent)}
          inputs={[weights]}
        >
          Distribution of the weights.
        </Canvas>
        <Canvas
          height={150}
          label={`Histogram of the activations of ${name}. ${remark(layer)}`}
          draw={(pen) => drawHistogram(pen, activations, activation ? `after ${activation}` : "output", pen.palette.second)}
          inputs={[activations]}
        >
          Distribution of the activations. {remark(layer)}
        </Canvas>
      </div>
    </div>
  );
}

const SATURATED = 0.95; // of the output range of tanh and sigmoid

/** Reports dead units (ReLU) and saturated activations (tanh, sigmoid). */
function remark({ activation, activations, step }: LayerView): string {
  const rows = activations.length / step.outputs;
  if (activation === "relu") {
    const dead = Array.from({ length: step.outputs }, (_, unit) => unit).filter((unit) => {
      for (let row = 0; row < rows; row++) if ((activations[row * step.outputs + unit] ?? 0) > 0) return false;
      return true;
    }).length;
    return dead === 0 ? "No dead units." : `${dead} of ${step.outputs} units are dead: zero for all of these rows.`;
  }
  const ends = activation === "tanh" ? [-1, 1] : activation === "sigmoid" ? [0, 1] : null;
  if (!ends) return "";
  const [low = 0, high = 1] = ends;
  const room = ((1 - SATURATED) * (high - low)) / 2;
  let flat = 0;
  for (const value of activations) if (value < low + room || value > high - room) flat++;
  return `${percent(flat / Math.max(1, activations.length))} of the activations are saturated.`;
}

function extent(values: Float32Array): Range {
  return [values.reduce((one, other) => Math.min(one, other), Infinity), values.reduce((one, other) => Math.max(one, other), -Infinity)];
}

function drawWeights({ context, width, height, palette }: Pen, { step, weights, biases }: LayerView): void {
  const largest = Math.max(...extent(weights).map(Math.abs), ...extent(biases).map(Math.abs), 1e-9);
  const [low, high, ground] = [palette.classes[0], palette.classes[1], palette.line].map((each) => channels(each ?? ""));
  const gap = 10;
  const cell = (width - gap) / (step.inputs + 1);
  const tall = height / step.outputs;
  const margin = Math.min(cell, tall) > 7 ? 1 : 0;
  const paint = (value: number, left: number, top: number) => {
    const share = value / largest;
    const to = (share < 0 ? low : high) ?? [0, 0, 0];
    const color = (ground ?? to).map((channel, place) => Math.round(channel + ((to[place] ?? 0) - channel) * Math.abs(share)));
    context.fillStyle = `rgb(${color.join(" ")})`;
    context.fillRect(left, top, Math.max(cell - margin, 0.5), Math.max(tall - margin, 0.5));
  };
  for (let unit = 0; unit < step.outputs; unit++) {
    for (let input = 0; input < step.inputs; input++) {
      paint(weights[unit * step.inputs + input] ?? 0, input * cell, unit * tall);
    }
    paint(biases[unit] ?? 0, step.inputs * cell + gap, unit * tall);
  }
}

const BINS = 24;

function drawHistogram(pen: Pen, values: Float32Array, label: string, color: string): void {
  const [low, high] = rangeOf([...extent(values)], 0.02);
  const bins = new Array<number>(BINS).fill(0);
  for (const value of values) {
    const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * BINS)));
    bins[bin] = (bins[bin] ?? 0) + 1;
  }
  const frame = axes(pen, [low, high], [0, Math.max(...bins) * 1.05], { x: label, y: "count" });
  inside(pen, frame, () => {
    pen.context.fillStyle = color;
    const step = frame.width / BINS;
    bins.forEach((size, bin) => {
      const top = frame.toY(size);
      pen.context.fillRect(frame.left + bin * step + 0.5, top, Math.max(1, step - 1), frame.top + frame.height - top);
    });
  });
}
