/** The search that "Try settings" submits: what a practitioner varies first, around the settings of the form. */

import type { RunConfig, RunPlan, SweepRequest } from "../../api";

type Space = SweepRequest["space"];
type Dimension = Space[string];
type Fields = Record<string, unknown>;

export const TRIALS = 16;
const TIMES = 10; // how far a learning rate or a weight decay is from the form's one, up and down
const DECAYS: [number, number] = [1e-6, 1e-2]; // around no decay
const DROPOUTS = [0, 0.1, 0.3];
const LONG_S = 120; // seconds of all members, from which weak ones are ended early
const FACTOR = 3; // of the halving
const MOST_UNITS = 65_536;

/** Returns the request of a sweep on a configuration that the service has completed. */
export function searchOf(body: RunConfig, plan: RunPlan): SweepRequest {
  const { register_as, name, ...base } = body;
  const request: SweepRequest = {
    base,
    space: spaceOf(plan.config as unknown as Fields),
    trials: TRIALS,
    strategy: strategyOf(plan),
    name: name || `Settings for ${targetOf(body)}`,
  };
  if (register_as) request.register_best_as = register_as;
  return request;
}

export function targetOf(body: RunConfig): string {
  return [body.target].flat().join(", ");
}

/** Varies the learning rate, and the fields against under- and overfitting that the model has. */
export function spaceOf(config: Fields): Space {
  const optimizer = config["optimizer"] as Fields;
  const model = config["model"] as Fields;
  const space: Space = {};
  const rate = Number(optimizer["learning_rate"]);
  if (rate > 0) space["optimizer.learning_rate"] = around(rate);
  const widths = widthsOf(model["hidden"]);
  if (widths.length > 1) space["model.hidden"] = { choice: widths };
  const decay = optimizer["weight_decay"];
  if (typeof model["dropout"] === "number") {
    space["model.dropout"] = { choice: [...new Set([...DROPOUTS, model["dropout"]])].sort((one, other) => one - other) };
  } else if (typeof decay === "number") {
    space["optimizer.weight_decay"] = decay > 0 ? around(decay) : { log_uniform: DECAYS };
  }
  return space;
}

function around(value: number): Dimension {
  return { log_uniform: [short(value / TIMES), short(value * TIMES)] };
}

function short(value: number): number {
  return Number(value.toPrecision(3));
}

/** Returns the hidden layers with half, all and twice their units. */
function widthsOf(hidden: unknown): number[][] {
  if (!Array.isArray(hidden) || !hidden.every((width) => typeof width === "number")) return [];
  const scaled = [0.5, 1, 2].map((factor) =>
    hidden.map((width) => Math.min(MOST_UNITS, Math.max(1, Math.round(width * factor)))),
  );
  return [...new Map(scaled.map((each) => [each.join(), each])).values()];
}

/** A short search trains all members to their end; a long one gives most of its epochs to the best. */
function strategyOf({ config, estimate }: RunPlan): "random" | "halving" {
  const { epochs } = config as unknown as { epochs: number };
  const isLong = estimate.seconds * TRIALS > LONG_S;
  return isLong && epochs >= FACTOR ** 2 ? "halving" : "random";
}
