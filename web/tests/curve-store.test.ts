import assert from "node:assert/strict";
import { test } from "node:test";
import type { MetricRow, MetricsPage } from "../src/api";
import { csvOf, CurveStore, cut } from "../src/views/runs/curve-store";

function row(seq: number, value: number | "NaN" = 100 - seq, split: MetricRow["split"] = "train"): MetricRow {
  return { seq, attempt: 1, epoch: seq, step: seq, split, name: "loss", value, at_s: seq / 10 };
}

function numbers(store: CurveStore): number[] {
  return store.of("loss").flatMap(({ seq }) => seq);
}

test("a row that arrives twice is stored once", () => {
  const store = new CurveStore();
  store.append([row(1), row(2)]);
  store.append([row(2), row(3)]);
  assert.deepEqual(numbers(store), [1, 2, 3]);
});

test("rows that a new attempt replaces are dropped, and its new rows are appended", () => {
  const store = new CurveStore();
  store.append([row(1), row(2), row(3, 50, "validation"), row(4)]);
  store.rewind(2);
  assert.deepEqual(numbers(store), [1, 2]);
  store.append([row(3, 7)]);
  assert.equal(store.of("loss")[0]?.value.at(-1), 7);
});

test("a page replaces all rows, and sets the event after which the stream continues", () => {
  const store = new CurveStore();
  store.append([row(1), row(2)]);
  const columns = { seq: [9], attempt: [1], epoch: [5], step: [5], split: ["train"], name: ["loss"], value: ["NaN"], at_s: [1] };
  store.load({ data: columns, next_after: 9, last_event_id: 4, downsampled: true } as unknown as MetricsPage);
  assert.deepEqual(numbers(store), [9]);
  assert.deepEqual([store.lastSeq, store.lastEventId, store.isDownsampled], [9, 4, true]);
  assert.ok(Number.isNaN(store.of("loss")[0]?.value[0]));
});

test("a downsampled curve keeps its ends, its extremes and its values that are not finite", () => {
  const store = new CurveStore();
  const special = new Map<number, number | "NaN">([[7_001, 1e6], [9_001, -1e6], [11_001, "NaN"]]);
  store.append(Array.from({ length: 24_001 }, (_, at) => row(at + 1, special.get(at + 1) ?? 1)));
  const [curve] = store.of("loss");
  assert.ok(curve && curve.seq.length < 10_000 && store.isDownsampled);
  for (const seq of [1, 24_001, ...special.keys()]) assert.ok(curve.seq.includes(seq), String(seq));
  assert.deepEqual(curve.seq, curve.seq.toSorted((one, other) => one - other));
});

test("a curve is cut after an epoch, and written to CSV point by point", () => {
  const store = new CurveStore();
  store.append([row(1), row(2), row(3)]);
  const parts = store.of("loss").map((curve) => cut(curve, 2));
  assert.equal(csvOf(parts), "seq,split,name,epoch,step,seconds,value\n1,train,loss,1,1,0.1,99\n2,train,loss,2,2,0.2,98\n");
  assert.deepEqual(numbers(store), [1, 2, 3]);
});
