/** A small network in the browser: the operations that the service trains, forward pass only. */

import type { TrajectorySubject } from "../api";

/** All parameters of a network, flattened. */
export type Parameters = ArrayLike<number>;

interface Reading {
  /** places of the values that a step reads: 0 for the rows, n for the result of the n-th step */
  reads: number[];
}

export interface LinearStep extends Reading {
  kind: "linear";
  weight: number; // offset of the weights in the parameters
  bias: number; // offset of the biases
  inputs: number;
  outputs: number;
}

export interface ActivationStep extends Reading {
  kind: "activation";
  name: string;
}

export interface PairStep extends Reading {
  kind: "pair";
  name: string;
}

/** The rows beside small maps of the piecewise-linear codes of their numbers. */
export interface CodesStep extends Reading {
  kind: "codes";
  inputs: number;
  numbers: number;
  bins: number;
  size: number;
  // offsets in the parameters
  place: number;
  knots: number;
  weight: number;
  bias: number;
}

export type Step = LinearStep | ActivationStep | PairStep | CodesStep;

export interface Net {
  steps: Step[];
  inputs: number;
  outputs: number;
}

/** An operation of a network, as the service describes it. */
export interface Operation {
  kind: string;
  inputs: string[];
  output: string;
  units?: number;
  numbers?: number;
  bins?: number;
  size?: number;
}

export interface Graph {
  inputs: number;
  outputs: number;
  operations: Operation[];
}

export function netOf(subject: TrajectorySubject): Net {
  const { inputs, outputs, operations } = subject.net as unknown as Graph;
  const places = new Map<string, number>();
  let at = 0;
  for (const { name, shape } of subject.parameters) {
    places.set(name, at);
    at += shape.reduce((product, size) => product * size, 1);
  }
  const steps: Step[] = [];
  const values = new Map([["x", { place: 0, width: inputs }]]);
  for (const { kind, inputs: names, output, units, numbers = 0, bins = 0, size = 0 } of operations) {
    const read = names.map((name) => values.get(name) ?? { place: 0, width: inputs });
    const [first = { place: 0, width: inputs }] = read;
    const reads = read.map((value) => value.place);
    const own = (part: string) => places.get(`${output}.${part}`) ?? 0;
    if (kind === "dropout") {
      values.set(output, first); // it does nothing outside of training
      continue;
    }
    if (kind === "piecewise_linear") {
      const offsets = { place: own("place"), knots: own("knots"), weight: own("weight"), bias: own("bias") };
      steps.push({ kind: "codes", reads, inputs: first.width, numbers, bins, size, ...offsets });
      values.set(output, { place: steps.length, width: first.width + numbers * size });
      continue;
    }
    if (kind === "linear") {
      const [weight, bias] = [own("weight"), own("bias")];
      steps.push({ kind, reads, weight, bias, inputs: first.width, outputs: units ?? first.width });
    } else steps.push({ kind: reads.length > 1 ? "pair" : "activation", name: kind, reads });
    values.set(output, { place: steps.length, width: units ?? first.width });
  }
  return { steps, inputs, outputs };
}

/** Returns the outputs of each step for `rows` rows in `x`, (rows, inputs) flattened. */
export function trace(net: Net, values: Parameters, x: Float32Array, rows: number): Float32Array[] {
  const found = [x];
  for (const step of net.steps) {
    const [one = x, other = x] = step.reads.map((place) => found[place] ?? x);
    if (step.kind === "linear") found.push(linear(step, values, one, rows));
    else if (step.kind === "codes") found.push(coded(step, values, one, rows));
    else if (step.kind === "activation") found.push(activated(step.name, one));
    else found.push(paired(step.name, one, other));
  }
  return found.slice(1);
}

export function forward(net: Net, values: Parameters, x: Float32Array, rows: number): Float32Array {
  return trace(net, values, x, rows).at(-1) ?? x;
}

function linear(step: LinearStep, values: Parameters, x: Float32Array, rows: number): Float32Array {
  const { inputs, outputs, weight, bias } = step;
  const y = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    const from = row * inputs;
    for (let unit = 0; unit < outputs; unit++) {
      let sum = values[bias + unit] ?? 0;
      const first = weight + unit * inputs;
      for (let place = 0; place < inputs; place++) {
        sum += (values[first + place] ?? 0) * (x[from + place] ?? 0);
      }
      y[row * outputs + unit] = sum;
    }
  }
  return y;
}

function coded(step: CodesStep, values: Parameters, x: Float32Array, rows: number): Float32Array {
  const { inputs, numbers, bins, size } = step;
  const width = inputs + numbers * size;
  const y = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    y.set(x.subarray(row * inputs, (row + 1) * inputs), row * width);
    for (let number = 0; number < numbers; number++) {
      const value = x[row * inputs + (values[step.place + number] ?? 0)] ?? 0;
      for (let at = 0; at < size; at++) {
        let sum = values[step.bias + number * size + at] ?? 0;
        for (let bin = 0; bin < bins; bin++) {
          const weight = values[step.weight + (number * bins + bin) * size + at] ?? 0;
          sum += weight * partOf(values, step.knots + number * (bins + 1), bin, bins, value);
        }
        y[row * width + inputs + number * size + at] = Math.max(sum, 0);
      }
    }
  }
  return y;
}

/** Returns the share of a bin that lies below a value; the first and the last bin go on outside. */
function partOf(values: Parameters, knots: number, bin: number, bins: number, value: number): number {
  const [from, to] = [values[knots + bin] ?? 0, values[knots + bin + 1] ?? 0];
  if (to <= from) return 0;
  const share = (value - from) / (to - from);
  return Math.min(Math.max(share, bin > 0 ? 0 : -Infinity), bin < bins - 1 ? 1 : Infinity);
}

function activated(name: string, x: Float32Array): Float32Array {
  const act = ACTIVATIONS[name];
  return act ? x.map(act) : x;
}

function paired(name: string, one: Float32Array, other: Float32Array): Float32Array {
  const pair = PAIRS[name];
  return pair ? one.map((value, place) => pair(value, other[place] ?? 0)) : one;
}

const PAIRS: Record<string, (one: number, other: number) => number> = {
  add: (one, other) => one + other,
  multiply: (one, other) => one * other,
};

export const ACTIVATIONS: Record<string, (value: number) => number> = {
  relu: (value) => Math.max(value, 0),
  sigmoid: (value) => 1 / (1 + Math.exp(-value)),
  tanh: Math.tanh,
  gelu: (value) => 0.5 * value * (1 + erf(value * Math.SQRT1_2)),
};

/** Abramowitz and Stegun 7.1.26: seven digits, more than a plot shows. */
function erf(value: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(value));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(value) * (1 - sum * Math.exp(-value * value));
}

/** Converts outputs to the units of the target, or to class probabilities; in place. */
export function decode(subject: TrajectorySubject, outputs: Float32Array): Float32Array {
  const width = subject.outputs.length;
  const { classes, center, scale } = subject.target;
  for (let at = 0; at < outputs.length; at += width) {
    const row = outputs.subarray(at, at + width);
    if (classes) softmax(row);
    else row.forEach((value, place) => (row[place] = value * (scale[place] ?? 1) + (center[place] ?? 0)));
  }
  return outputs;
}

function softmax(row: Float32Array): void {
  const most = row.reduce((one, other) => Math.max(one, other), -Infinity);
  let sum = 0;
  row.forEach((value, place) => (sum += row[place] = Math.exp(value - most)));
  row.forEach((value, place) => (row[place] = value / sum));
}
