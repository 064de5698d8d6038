/** Searches over the settings of the form, and finds a learning rate for them. */

import { useState } from "preact/hooks";
import { call, type RunConfig, type RunPlan, submitSweep, testLearningRates } from "../../api";
import { Failure } from "../../components/failure";
import { duration } from "../../format";
import { announce } from "../../news";
import { go, href } from "../../router";
import { idempotencyKey } from "../datasets/upload";
import { labelOf, rangeText } from "../sweeps/parameters";
import { searchOf, targetOf, TRIALS } from "./search";

const STRATEGIES: Record<string, string> = {
  random: "random search: every run trains to its end",
  halving: "successive halving: the best third goes on, twice",
};

export function TrySettings({ body, plan }: { body: RunConfig; plan: RunPlan }) {
  const [failure, setFailure] = useState<unknown>(null);
  const [isSending, setSending] = useState(false);
  const search = searchOf(body, plan);

  async function send(start: () => Promise<string>): Promise<void> {
    setSending(true);
    setFailure(null);
    try {
      go(await start());
    } catch (refused) {
      setFailure(refused);
      setSending(false);
    }
  }

  const tryAll = () =>
    send(async () => {
      const { id } = await call(submitSweep({ body: search, headers: once() }));
      announce(`A sweep of ${TRIALS} runs is queued.`);
      return href("sweeps", id);
    });
  const findRate = () =>
    send(async () => {
      const name = body.name || `Learning rates for ${targetOf(body)}`;
      const { id } = await call(testLearningRates({ body: { ...body, name }, headers: once() }));
      announce("The test of learning rates is queued.");
      return href("runs", id);
    });
  return (
    <section class="card" aria-labelledby="try">
      <h2 id="try">Not sure?</h2>
      <p class="quiet small">
        Train {TRIALS} runs that differ in these settings, of about {duration(plan.estimate.seconds)} each, and rank
        them ({STRATEGIES[String(search.strategy)]}).
      </p>
      <dl class="ranges">
        {Object.entries(search.space).map(([path, dimension]) => (
          <div key={path}>
            <dt>{labelOf(path)}</dt>
            <dd>{rangeText(dimension as Record<string, unknown>)}</dd>
          </div>
        ))}
      </dl>
      <div class="row">
        <button type="button" disabled={isSending} onClick={() => void tryAll()}>
          Try settings
        </button>
        <button
          type="button"
          class="small"
          disabled={isSending}
          title="A short run with a rising learning rate, which suggests one"
          onClick={() => void findRate()}
        >
          Find a learning rate
        </button>
      </div>
      {failure !== null && <Failure error={failure} />}
    </section>
  );
}

function once(): Record<string, string> {
  return { "Idempotency-Key": idempotencyKey() };
}
