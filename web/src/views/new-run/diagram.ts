/** The layers of the network diagram of a run. */

import type { Dataset, RunPlan } from "../../api";
import type { DrawnLayer } from "../../components/charts/network";
import type { Graph } from "../../learning/net";
import type { Json } from "./schema";

/** Draws a column for each linear layer; the other operations are noted below the one before them. */
export function drawnLayers(plan: RunPlan, dataset: Dataset): DrawnLayer[] {
  const config = plan.config as Record<string, Json>;
  const features = Array.isArray(config["features"]) ? config["features"].length : 1;
  const layers: DrawnLayer[] = [{ units: features, label: features === 1 ? "feature" : "features", note: "input" }];
  const { operations = [] } = plan.net as Partial<Graph>;
  const output = outputOf(config, dataset);
  for (const [place, operation] of operations.entries()) {
    const last = layers[layers.length - 1];
    if (place === operations.length - 1) layers.push(output);
    else if (operation.kind === "linear") layers.push({ units: operation.units ?? 0, label: "units", note: "" });
    else if (last) last.note = [last.note, operation.kind].filter(Boolean).join(", ");
  }
  return layers;
}

function outputOf(config: Record<string, Json>, dataset: Dataset): DrawnLayer {
  const target = config["target"] ?? "";
  if (config["task"] === "regression") {
    const units = Array.isArray(target) ? target.length : 1;
    return { units, label: units === 1 ? "value" : "values", note: "output" };
  }
  const column = dataset.columns?.find((each) => each.name === target);
  return { units: Math.max(2, column?.distinct ?? 2), label: "classes", note: "output" };
}
