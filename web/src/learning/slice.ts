/** Predictions along one or two columns, with the other columns held at their means. */

import type { Axis, TrajectorySubject } from "../api";
import { decode, forward, type Net, type Parameters } from "./net";

/** Returns the mean of the encoded rows, for the columns that are not varied. */
export function averageRow(subject: TrajectorySubject): Float32Array {
  const rows = subject.sample.x;
  const mean = new Float32Array(subject.labels.length);
  for (const row of rows) row.forEach((value, place) => (mean[place] = (mean[place] ?? 0) + value / rows.length));
  // Indicators of missing values are 0: the slice varies values that are present.
  subject.labels.forEach((label, place) => {
    if (label.endsWith(" is missing")) mean[place] = 0;
  });
  return mean;
}

export function encoded(subject: TrajectorySubject, axis: Axis, value: number): number {
  return (value - (subject.centers[axis.place] ?? 0)) / (subject.scales[axis.place] ?? 1);
}

export function decoded(subject: TrajectorySubject, axis: Axis, value: number): number {
  return value * (subject.scales[axis.place] ?? 1) + (subject.centers[axis.place] ?? 0);
}

export interface Around {
  subject: TrajectorySubject;
  net: Net;
  values: Parameters;
}

/** Returns the predictions for values of one column, (values, outputs) flattened. */
export function along({ subject, net, values }: Around, axis: Axis, at: number[]): Float32Array {
  const base = averageRow(subject);
  const x = new Float32Array(at.length * base.length);
  at.forEach((value, row) => {
    x.set(base, row * base.length);
    x[row * base.length + axis.place] = encoded(subject, axis, value);
  });
  return decode(subject, forward(net, values, x, at.length));
}

/** Returns the predictions for each pair of values, in rows of ascending `second`. */
export function over(
  { subject, net, values }: Around,
  [first, second]: [Axis, Axis],
  us: number[],
  vs: number[],
): Float32Array {
  const base = averageRow(subject);
  const rows = us.length * vs.length;
  const x = new Float32Array(rows * base.length);
  let row = 0;
  for (const v of vs) {
    for (const u of us) {
      const start = row * base.length;
      x.set(base, start);
      x[start + first.place] = encoded(subject, first, u);
      x[start + second.place] = encoded(subject, second, v);
      row++;
    }
  }
  return decode(subject, forward(net, values, x, rows));
}

/** Returns evenly spaced values of a column, slightly beyond its range. */
export function spread(axis: Axis, count: number): number[] {
  const room = (axis.max - axis.min) * 0.06 || 1;
  const [least, most] = [axis.min - room, axis.max + room];
  return Array.from({ length: count }, (_, place) => least + ((most - least) * place) / (count - 1));
}
