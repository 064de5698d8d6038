/** The plan of the run that the form describes: estimated cost, warnings, errors, and the request as code. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, type Dataset, type RunConfig, type RunPlan, validateRun } from "../../api";
import { Network } from "../../components/charts/network";
import { Code } from "../../components/code";
import { Failure, Notices } from "../../components/failure";
import { bytes, count, duration } from "../../format";
import { drawnLayers } from "./diagram";
import { asCurl, asPython } from "./as-code";
import { TrySettings } from "./try-settings";

export interface Checked {
  plan: RunPlan | null;
  error: unknown;
}

const QUIET = 200; // milliseconds without a change before the request is sent

/** Validates the request with the service after each change. */
export function usePlan(body: RunConfig): Checked {
  const [state, setState] = useState<Checked>({ plan: null, error: null });
  const text = JSON.stringify(body);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => {
      call(validateRun({ body: JSON.parse(text) as RunConfig, signal: abort.signal })).then(
        (plan) => setState({ plan, error: null }),
        (error: unknown) => {
          if (!abort.signal.aborted) setState((old) => ({ plan: old.plan, error }));
        },
      );
    }, QUIET);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text]);
  return state;
}

interface Props {
  body: RunConfig;
  plan: Checked;
  dataset: Dataset;
  children: ComponentChildren;
}

export function PlanPanel({ body, plan: { plan, error }, dataset, children }: Props) {
  const estimate = plan?.estimate;
  const facts = {
    Parameters: count(estimate?.parameters),
    Steps: count(estimate?.steps),
    "Estimated time": duration(estimate?.seconds),
    Memory: bytes(estimate?.memory_bytes),
    ...(estimate?.disk_bytes ? { "Rows in files": bytes(estimate.disk_bytes) } : {}),
  };
  return (
    <aside class="stack aside" aria-label="Plan">
      <div class="card">
        <dl class="facts">
          {Object.entries(facts).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        {children}
        {error !== null && <Failure error={error} />}
        {plan && error === null && <Notices notices={plan.warnings ?? []} />}
      </div>
      {plan && <TrySettings body={body} plan={plan} />}
      <div class="card network-place">{plan && <Network layers={drawnLayers(plan, dataset)} />}</div>
      <div class="card">
        <h2>Request as code</h2>
        <Code texts={{ curl: asCurl(body), Python: asPython(body) }} />
      </div>
    </aside>
  );
}
