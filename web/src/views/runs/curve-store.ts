/**
 * The metric curves of one run, as far as they are loaded.
 *
 * The service downsamples long curves; live rows are appended. Each row has a sequence number, by which
 * the store drops rows that a new attempt replaces and rows that arrive twice.
 */

import type { MetricColumns, MetricRow, MetricsPage } from "../../api";

export interface Curve {
  split: string;
  name: string;
  seq: number[];
  epoch: number[];
  step: number[];
  time: number[];
  /** NaN if the value was not finite */
  value: number[];
}

/** The x axes of a curve, with their labels. */
export type Axis = "epoch" | "step" | "time";
export const AXES: Record<Axis, string> = { epoch: "epoch", step: "step", time: "seconds" };

const MOST = 24_000; // points of a curve; a longer one is downsampled here, too
const KEPT = 6_000; // points left by downsampling

export class CurveStore {
  readonly curves = new Map<string, Curve>();
  lastSeq = 0;
  lastEventId = 0;
  /** counts changes, so that a view knows when to redraw */
  version = 0;
  /** whether points are left out */
  isDownsampled = false;

  load(page: MetricsPage): void {
    this.curves.clear();
    const rows = page.data as MetricColumns;
    for (let place = 0; place < rows.seq.length; place += 1) this.#push(rowOf(rows, place));
    this.lastSeq = page.next_after;
    this.lastEventId = page.last_event_id ?? 0;
    this.isDownsampled = page.downsampled;
    this.version += 1;
  }

  append(rows: MetricRow[]): void {
    for (const row of rows) {
      if (row.seq <= this.lastSeq) continue;
      this.#push(row);
      this.lastSeq = row.seq;
    }
    for (const curve of this.curves.values()) {
      if (curve.seq.length > MOST) this.#downsample(curve);
    }
    this.version += 1;
  }

  rewind(afterSeq: number): void {
    for (const curve of this.curves.values()) {
      const from = curve.seq.findIndex((seq) => seq > afterSeq);
      if (from >= 0) for (const part of arraysOf(curve)) part.length = from;
    }
    this.lastSeq = Math.min(this.lastSeq, afterSeq);
    this.version += 1;
  }

  /** The names of the metrics, the loss first. */
  names(): string[] {
    const names = [...new Set([...this.curves.values()].map((curve) => curve.name))];
    return names.sort((one, other) => Number(other === "loss") - Number(one === "loss"));
  }

  of(name: string): Curve[] {
    return [...this.curves.values()].filter((curve) => curve.name === name);
  }

  #push(row: MetricRow): void {
    const key = `${row.split} ${row.name}`;
    let curve = this.curves.get(key);
    if (!curve) {
      curve = { split: row.split, name: row.name, seq: [], epoch: [], step: [], time: [], value: [] };
      this.curves.set(key, curve);
    }
    curve.seq.push(row.seq);
    curve.epoch.push(row.epoch);
    curve.step.push(row.step);
    curve.time.push(row.at_s);
    curve.value.push(typeof row.value === "number" ? row.value : Number.NaN);
  }

  /** Keeps the minimum and the maximum of each bucket of points, as the service does. */
  #downsample(curve: Curve): void {
    const size = curve.value.length;
    const bucket = Math.ceil(size / (KEPT / 2));
    const keep = new Set([0, size - 1]);
    for (let start = 0; start < size; start += bucket) {
      let [least, most] = [start, start];
      for (let place = start; place < Math.min(start + bucket, size); place += 1) {
        const value = curve.value[place] ?? 0;
        if (value < (curve.value[least] ?? 0)) least = place;
        if (value > (curve.value[most] ?? 0)) most = place;
        if (Number.isNaN(value)) keep.add(place);
      }
      keep.add(least).add(most);
    }
    const places = [...keep].sort((one, other) => one - other);
    for (const part of arraysOf(curve)) {
      const kept = places.map((place) => part[place] ?? 0);
      part.length = 0;
      part.push(...kept);
    }
    this.isDownsampled = true;
  }
}

/** Returns a curve up to an epoch. */
export function cut(curve: Curve, epoch: number): Curve {
  const after = curve.epoch.findIndex((each) => each > epoch);
  const end = after < 0 ? curve.seq.length : after;
  const { split, name } = curve;
  const [seq, epochs, step, time, value] = arraysOf(curve).map((part) => part.slice(0, end)) as Parts;
  return { split, name, seq, epoch: epochs, step, time, value };
}

/** Returns the points of curves as CSV, one line per point. */
export function csvOf(curves: Curve[]): string {
  const lines = curves.flatMap(({ split, name, seq, epoch, step, time, value }) =>
    seq.map((each, at) => [each, split, name, epoch[at], step[at], time[at], value[at]].join(",")),
  );
  return ["seq,split,name,epoch,step,seconds,value", ...lines, ""].join("\n");
}

type Parts = [number[], number[], number[], number[], number[]];

function arraysOf(curve: Curve): Parts {
  return [curve.seq, curve.epoch, curve.step, curve.time, curve.value];
}

export function rowOf(rows: MetricColumns, place: number): MetricRow {
  return {
    seq: rows.seq[place] ?? 0,
    attempt: rows.attempt[place] ?? 0,
    epoch: rows.epoch[place] ?? 0,
    step: rows.step[place] ?? 0,
    split: rows.split[place] ?? "train",
    name: rows.name[place] ?? "loss",
    value: rows.value[place] ?? "NaN",
    at_s: rows.at_s[place] ?? 0,
  };
}
