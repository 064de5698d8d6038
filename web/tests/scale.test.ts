import assert from "node:assert/strict";
import { test } from "node:test";
import type { SweepTrial } from "../src/api";
import { linear, logarithmic, numeric, words } from "../src/components/charts/scale";
import { metricScale } from "../src/views/sweeps/parameters";

test("a logarithmic axis gives each power of ten equal room, and none to what has no logarithm", () => {
  const scale = logarithmic([0.001, 0.1]);
  assert.ok(Math.abs((scale.share(0.01) ?? 0) - 0.5) < 1e-12);
  assert.deepEqual([scale.share(0), scale.share("NaN"), scale.share(Number.NaN)], [null, null, null]);
  assert.deepEqual(scale.ticks(5).map(({ text }) => text), ["0.001", "0.01", "0.1"]);
});

test("an axis of numbers is logarithmic once they are far apart and above zero", () => {
  const middle = (values: number[]) => numeric(values).share(10) ?? 0;
  assert.ok(middle([1, 10, 100]) > 0.4);
  assert.ok(middle([0, 10, 100]) < 0.2);
  assert.ok(middle([1, 10, 20]) < 0.5);
});

test("an axis of one value has it in the middle", () => {
  assert.equal(numeric([7]).share(7), 0.5);
  assert.equal(words([[64]], String).share([64]), 0.5);
});

test("words are evenly spaced in their order, and many of them are not all labelled", () => {
  const scale = words(["b", "a", "c"], String);
  assert.deepEqual(["b", "a", "c", "d"].map(scale.share), [0, 0.5, 1, null]);
  const many = words(Array.from({ length: 100 }, (_, place) => place), String);
  assert.ok(many.ticks(6).length <= 12);
});

test("a linear axis has ticks at round values inside its range", () => {
  assert.deepEqual(linear([0, 10]).ticks(5), [0, 2, 4, 6, 8, 10].map((value) => ({ at: value / 10, text: String(value) })));
});

test("a trial that diverged lies on the edge of the axis, and leaves the others their room", () => {
  const trials = [0.1, 0.2, 0.3, 1e30].map((value) => ({ value }) as unknown as SweepTrial);
  const { share } = metricScale(trials);
  assert.equal(share(1e30), 1);
  assert.ok((share(0.2) ?? 0) > 0.4);
});
