/** Trains the same model with a learning rate that is too small, right and too large, and compares the results. */

import { useState } from "preact/hooks";
import { call, listRuns, type Run, type RunConfig, submitRun, type TrajectorySubject } from "../../api";
import { Failure } from "../../components/failure";
import type { LineProblem } from "../../learning/line";
import { announce } from "../../news";
import { useResource } from "../../resource";
import { idempotencyKey } from "../datasets/upload";
import { RateResults } from "./rate-results";
import { configOf, RATES_OF } from "./words";

interface Props {
  run: Run;
  subject: TrajectorySubject;
  problem: LineProblem | null;
}

export const RATE_KINDS = ["too small", "right", "too large"] as const;
type RateKind = (typeof RATE_KINDS)[number];

const EPOCHS = 40;
const TRIAL = "rates_trial";

export function Rates({ run, subject, problem }: Props) {
  const [rates, setRates] = useState(() => suggested(run, subject));
  const [error, setError] = useState<unknown>(null);
  const [isSending, setSending] = useState(false);
  const trial = useResource((signal) => newest(run.id, signal), [run.id]);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setSending(true);
    setError(null);
    try {
      const name = idempotencyKey();
      const runs: Run[] = [];
      for (const kind of RATE_KINDS) runs.push(await submitted(run, subject, kind, Number(rates[kind]), name));
      trial.set(runs);
      announce("Three runs are queued.");
    } catch (refused) {
      setError(refused);
    } finally {
      setSending(false);
    }
  }

  return (
    <section class="card" aria-labelledby="rates">
      <h2 id="rates">Compare learning rates</h2>
      <p class="quiet">{explained(subject)}</p>
      <form class="choice-row rate-form" onSubmit={(event) => void submit(event)}>
        {RATE_KINDS.map((kind) => (
          <label class="field" key={kind}>
            <span>{kind[0]?.toUpperCase() + kind.slice(1)}</span>
            <input
              inputMode="decimal"
              autocomplete="off"
              value={rates[kind]}
              onInput={(event) => setRates({ ...rates, [kind]: event.currentTarget.value })}
            />
          </label>
        ))}
        <button class="primary" disabled={isSending}>
          {isSending ? "Starting…" : trial.data?.length ? "Train again" : "Train all three"}
        </button>
      </form>
      {error !== null && <Failure error={error} />}
      {trial.error !== null && <Failure error={trial.error} retry={trial.reload} />}
      {trial.data && trial.data.length > 0 && (
        <RateResults key={trial.data[0]?.id} runs={trial.data} problem={problem} />
      )}
    </section>
  );
}

function explained(subject: TrajectorySubject): string {
  const largest = subject.line?.largest_learning_rate;
  if (!largest) {
    return `Trains the same model for ${EPOCHS} epochs with each learning rate. All other settings are those of this run.`;
  }
  return (
    `Full-batch gradient descent for ${EPOCHS} epochs each. The loss of a linear model is a convex bowl: above a ` +
    `learning rate of ${largest.toPrecision(3)} each step overshoots to a higher loss, and training diverges.`
  );
}

/** Returns a learning rate of each kind, as far as the service can derive them. */
function suggested(run: Run, subject: TrajectorySubject): Record<RateKind, string> {
  const largest = subject.line?.largest_learning_rate;
  const text = (rate: number) => String(Number(rate.toPrecision(3)));
  if (largest) return { "too small": text(largest / 60), right: text(largest * 0.6), "too large": text(largest * 1.03) };
  const rate = configOf(run).optimizer?.learning_rate ?? 0.01;
  return { "too small": text(rate / 100), right: text(rate), "too large": text(rate * 100) };
}

async function submitted(run: Run, subject: TrajectorySubject, kind: RateKind, rate: number, trial: string): Promise<Run> {
  const isBowl = Boolean(subject.line?.largest_learning_rate);
  const { register_as: _, ...config } = run.config as unknown as RunConfig;
  const own = config.optimizer as { type: string };
  const body = {
    ...config,
    optimizer: isBowl ? { type: "sgd", learning_rate: rate } : { ...own, learning_rate: rate },
    ...(isBowl ? { batch_size: "full" } : {}),
    schedule: { type: "constant" },
    epochs: EPOCHS,
    early_stopping: null,
    name: `rate ${rate}`,
    tags: { [RATES_OF]: run.id, [TRIAL]: trial, rate: kind },
  } as RunConfig;
  return call(submitRun({ body, headers: { "Idempotency-Key": idempotencyKey() } }));
}

/** Returns the runs of the last trial, in the order of `RATE_KINDS`. */
async function newest(runId: string, signal: AbortSignal): Promise<Run[]> {
  const page = await call(listRuns({ query: { tag: [`${RATES_OF}:${runId}`], limit: 3 }, signal }));
  const trial = page.data[0]?.tags?.[TRIAL];
  return RATE_KINDS.flatMap((kind) =>
    page.data.filter((run) => run.tags?.[TRIAL] === trial && run.tags?.["rate"] === kind).slice(0, 1),
  );
}
