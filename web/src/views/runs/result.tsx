/** What the run's model is worth: figures beside what needs no learning, and pictures of them. */

import type { Run } from "../../api";
import { Confusion } from "../../components/charts/confusion";
import { Scroll } from "../../components/scroll";
import { number, percent } from "../../format";
import { EvaluationPlots } from "./points";

type Metrics = Record<string, unknown>;

/** The figures that are shown, best known first; the service has more. */
const SHOWN = ["accuracy", "auc", "f1", "cross_entropy", "r2", "rmse", "mae", "mse", "sse"];
const SPLITS = ["test", "validation", "train"] as const;
const TITLES: Record<string, string> = {
  accuracy: "Accuracy",
  auc: "Area under ROC",
  f1: "F1, mean of classes",
  cross_entropy: "Cross entropy",
  r2: "R²",
  rmse: "RMSE",
  mae: "Mean absolute error",
  mse: "Mean squared error",
  sse: "Sum of squared errors",
};

export function Result({ run }: { run: Run }) {
  const evaluation = run.evaluation as Record<string, Metrics>;
  const split = SPLITS.find((name) => evaluation[name]) ?? "train";
  const confusion = evaluation[split]?.["confusion"] as ConfusionCounts | undefined;
  return (
    <>
      <MetricTable evaluation={evaluation} />
      <div class="halves">
        <div class="stack">
          {confusion && (
            <section class="card" aria-labelledby="confusion">
              <h2 id="confusion">Confusion matrix</h2>
              <Confusion labels={confusion.labels} matrix={confusion.matrix} split={split} />
            </section>
          )}
          <RunImportance evaluation={evaluation} />
        </div>
        <EvaluationPlots run={run} split={split} />
      </div>
    </>
  );
}

interface ConfusionCounts {
  labels: string[];
  matrix: number[][];
}

function MetricTable({ evaluation }: { evaluation: Record<string, Metrics> }) {
  const splits = SPLITS.filter((name) => evaluation[name]);
  const baseline = (evaluation["baseline"] ?? {}) as Record<string, Metrics | string>;
  const baselines = Object.keys(baseline).filter((name) => typeof baseline[name] === "object");
  const columns: [string, Metrics][] = [
    ...splits.map((name): [string, Metrics] => [name, evaluation[name] ?? {}]),
    ...baselines.map((name): [string, Metrics] => [`${name} baseline`, baseline[name] as Metrics]),
  ];
  const rows = SHOWN.filter((figure) => columns.some(([, figures]) => typeof figures[figure] === "number"));
  return (
    <section class="card" aria-labelledby="result">
      <h2 id="result">Result</h2>
      <p class="quiet small">
        Of the best epoch's model. A baseline needs no learning: it always answers the same
        {baselines.includes("linear") && ", or follows a straight line"}
        {typeof baseline["split"] === "string" && `; measured on the ${baseline["split"]} rows`}.
      </p>
      <Scroll label="Table of figures">
        <table>
          <thead>
            <tr>
              <th scope="col">Figure</th>
              {columns.map(([name]) => (
                <th scope="col" class="right" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((figure) => (
              <tr key={figure}>
                <th scope="row">{TITLES[figure]}</th>
                {columns.map(([name, figures]) => (
                  <td class="right" key={name}>
                    {shown(figure, figures[figure])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

function shown(figure: string, value: unknown): string {
  return figure === "accuracy" && typeof value === "number" ? percent(value) : number(value);
}

interface PermutationImportance {
  split: string;
  metric: string;
  columns: { column: string; mean: number; std: number }[];
}

const MOST_COLUMNS = 15;

function RunImportance({ evaluation }: { evaluation: Record<string, unknown> }) {
  const found = evaluation["importance"] as PermutationImportance | null | undefined;
  if (!found || found.columns.length === 0) return null;
  const shownColumns = found.columns.slice(0, MOST_COLUMNS);
  const most = Math.max(...shownColumns.map((each) => each.mean), Number.MIN_VALUE);
  const what = found.metric === "r2" ? "the fall of R²" : "the rise of the cross entropy";
  return (
    <section class="card" aria-labelledby="importance">
      <h2 id="importance">Importance of the columns</h2>
      <p class="quiet small">
        What shuffling a column costs: {what} on the {found.split} rows.
      </p>
      <table class="bars">
        <caption class="unseen">Importance of the columns</caption>
        <tbody>
          {shownColumns.map((each) => (
            <tr key={each.column}>
              <th scope="row" title={each.column}>
                {each.column}
              </th>
              <td>
                <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <rect width={Math.max(0, (100 * each.mean) / most)} height="10" />
                </svg>
              </td>
              <td class="right nowrap">
                {number(each.mean)} <span class="quiet">± {number(each.std)}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
