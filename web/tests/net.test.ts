import assert from "node:assert/strict";
import { test } from "node:test";
import type { TrajectorySubject } from "../src/api";
import { forward, netOf } from "../src/learning/net";

test("codes of numbers stand beside the rows and bend at the knots", () => {
  const operations = [
    { kind: "piecewise_linear", inputs: ["x"], output: "0", numbers: 1, bins: 3, size: 1 },
    { kind: "linear", inputs: ["0"], output: "1", units: 1 },
  ];
  const shapes = { "0.weight": [1, 3, 1], "0.bias": [1, 1], "1.weight": [1, 3], "1.bias": [1] };
  const fixed = { "0.place": [1], "0.knots": [1, 4] };
  const parameters = Object.entries({ ...shapes, ...fixed }).map(([name, shape]) => ({ name, shape }));
  const subject = { net: { inputs: 2, outputs: 1, operations }, parameters } as unknown as TrajectorySubject;
  // The weights of the bins, of which the second is none, then 100 · the first column + the code.
  const values = [10, 7, 20, 1, 100, 0, 1, 0, 1, 0, 2, 2, 3];
  const rows = Float32Array.of(0, -0.05, 1, 1, 0, 2.5, 0, 5);
  // The code of -0.05 is -0.025, and those of the last two are 1 and 0.5, 1 and 3.
  const expected = [0.75, 106, 21, 71];
  const found = forward(netOf(subject), values, rows, 4);
  expected.forEach((value, row) => assert.ok(Math.abs((found[row] ?? 0) - value) < 1e-4, `${found}`));
});

test("a net that branches is computed like a stack", () => {
  // y = w · (h + tanh(h) · h) with h = 2x + 1
  const operations = [
    { kind: "linear", inputs: ["x"], output: "0", units: 1 },
    { kind: "tanh", inputs: ["0"], output: "1" },
    { kind: "dropout", inputs: ["1"], output: "2", share: 0.5 },
    { kind: "multiply", inputs: ["0", "2"], output: "3" },
    { kind: "add", inputs: ["0", "3"], output: "4" },
    { kind: "linear", inputs: ["4"], output: "5", units: 1 },
  ];
  const parameters = ["0.weight", "0.bias", "5.weight", "5.bias"].map((name) => ({
    name,
    shape: name.endsWith("weight") ? [1, 1] : [1],
  }));
  const subject = { net: { inputs: 1, outputs: 1, operations }, parameters } as unknown as TrajectorySubject;
  const found = forward(netOf(subject), [2, 1, 3, -1], Float32Array.of(0, 0.5), 2);
  [1, 2].forEach((h, row) => {
    assert.ok(Math.abs((found[row] ?? 0) - (3 * (h + Math.tanh(h) * h) - 1)) < 1e-5);
  });
});
