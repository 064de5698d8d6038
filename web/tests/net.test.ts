import assert from "node:assert/strict";
import { test } from "node:test";
import type { TrajectorySubject } from "../src/api";
import { forward, netOf } from "../src/learning/net";

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
