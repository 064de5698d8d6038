import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunConfig, RunPlan } from "../src/api";
import { searchOf, spaceOf } from "../src/views/new-run/search";

const MLP = { type: "mlp", hidden: [64, 32], activation: "relu", dropout: 0.2 };
const ADAM = { type: "adam", learning_rate: 0.01, weight_decay: 0 };

function planOf(seconds: number, epochs: number): RunPlan {
  return { config: { model: MLP, optimizer: ADAM, epochs }, estimate: { seconds } } as unknown as RunPlan;
}

test("a network varies in its learning rate, its widths and its dropout, around its own", () => {
  assert.deepEqual(spaceOf({ model: MLP, optimizer: ADAM }), {
    "optimizer.learning_rate": { log_uniform: [0.001, 0.1] },
    "model.hidden": { choice: [[32, 16], [64, 32], [128, 64]] },
    "model.dropout": { choice: [0, 0.1, 0.2, 0.3] },
  });
});

test("a model without dropout varies in its weight decay instead", () => {
  const linear = { type: "linear" };
  assert.deepEqual(Object.keys(spaceOf({ model: linear, optimizer: ADAM })), [
    "optimizer.learning_rate",
    "optimizer.weight_decay",
  ]);
  const decayed = { ...ADAM, weight_decay: 0.01 };
  assert.deepEqual(spaceOf({ model: linear, optimizer: decayed })["optimizer.weight_decay"], {
    log_uniform: [0.001, 0.1],
  });
});

test("layers of one unit are not halved", () => {
  const narrow = { ...MLP, hidden: [1] };
  assert.deepEqual(spaceOf({ model: narrow, optimizer: ADAM })["model.hidden"], { choice: [[1], [2]] });
});

test("the best member takes the place of the run: its name and its model", () => {
  const body = { dataset: "ds_1", target: "y", name: "mine", register_as: "scores" } as unknown as RunConfig;
  const { base, name, register_best_as } = searchOf(body, planOf(1, 60));
  assert.deepEqual(base, { dataset: "ds_1", target: "y" });
  assert.deepEqual([name, register_best_as], ["mine", "scores"]);
  assert.equal(searchOf({ ...body, name: null }, planOf(1, 60)).name, "Settings for y");
});

test("a long search ends weak members early, if there are epochs enough for it", () => {
  const body = { dataset: "ds_1", target: "y" } as unknown as RunConfig;
  assert.equal(searchOf(body, planOf(1, 60)).strategy, "random");
  assert.equal(searchOf(body, planOf(60, 60)).strategy, "halving");
  assert.equal(searchOf(body, planOf(60, 8)).strategy, "random");
});
