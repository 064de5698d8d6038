import assert from "node:assert/strict";
import { test } from "node:test";
import type { Dataset } from "../src/api";
import { draftOf, firstDraft, modelName, request, valueOf, withValue } from "../src/views/new-run/draft";

const COLUMNS = [
  { name: "id", role: "id", distinct: 9 },
  { name: "quiz", role: "feature", distinct: 9 },
  { name: "final", role: "feature", distinct: 9 },
  { name: "same", role: "feature", distinct: 1 },
];
const DATASET = { id: "ds_1", name: "my scores.csv", columns: COLUMNS } as unknown as Dataset;

test("the default target is the last feature that varies", () => {
  const body = request(firstDraft(DATASET)) as unknown as Record<string, unknown>;
  assert.deepEqual(body, { dataset: "ds_1", target: "final", register_as: "my-scores.csv" });
});

test("a request holds only values that differ from the defaults", () => {
  const draft = withValue(firstDraft(DATASET), "epochs", 7);
  assert.equal(valueOf(draft, "epochs"), 7);
  assert.ok(!("epochs" in withValue(draft, "epochs", 200).rest));
  assert.equal(valueOf(withValue(draft, "early_stopping", null), "early_stopping"), null);
});

test("a draft of a run holds the settings of the run that differ from the defaults", () => {
  const config = {
    target: "quiz",
    epochs: 200,
    preset: "fast", // the rest of the configuration says all that it chose
    model: { type: "mlp", hidden: [8], activation: "relu", dropout: 0, embedding: { type: "none" } },
    optimizer: { type: "adam", learning_rate: 0.01, weight_decay: 0 },
  };
  const draft = draftOf(config, DATASET);
  assert.deepEqual([draft.target, draft.rest], ["quiz", { model: { type: "mlp", hidden: [8] } }]);
});

test("a model name is made of the allowed characters of a dataset name", () => {
  assert.equal(modelName("Übung 1 (neu).csv"), "Ubung-1-neu-.csv");
  assert.equal(modelName("—"), "model");
});
