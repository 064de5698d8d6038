/** The layers of the network diagram of a run. */

import type { Dataset, RunPlan } from "../../api";
import type { DrawnLayer } from "../../components/charts/network";
import type { Json } from "./schema";

export function drawnLayers(plan: RunPlan, dataset: Dataset): DrawnLayer[] {
  const config = plan.config as Record<string, Json>;
  const features = Array.isArray(config["features"]) ? config["features"].length : 1;
  const layers: DrawnLayer[] = [{ units: features, label: features === 1 ? "feature" : "features", note: "input" }];
  for (const layer of hiddenOf(config["model"])) {
    const last = layers[layers.length - 1];
    if (typeof layer === "object" && layer !== null && "linear" in layer) {
      layers.push({ units: Number(layer["linear"]), label: "units", note: "" });
    } else if (last) {
      const note = typeof layer === "string" ? layer : "dropout";
      last.note = [last.note, note].filter(Boolean).join(", ");
    }
  }
  layers.push(outputOf(config, dataset));
  return layers;
}

function hiddenOf(model: Json | undefined): Json[] {
  if (typeof model !== "object" || model === null || Array.isArray(model)) return [];
  if (Array.isArray(model["layers"])) return model["layers"];
  const widths = Array.isArray(model["hidden"]) ? model["hidden"] : [];
  return widths.flatMap((width): Json[] => [{ linear: width }, model["activation"] ?? ""]);
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
