/** The evaluation of a run: metrics by split, baselines, confusion matrix, feature importance, plots. */

import type { Run } from "../../api";
import { Confusion } from "../../components/charts/confusion";
import { Scroll } from "../../components/scroll";
import { number, percent } from "../../format";
import { type Metrics, metricTitle, rowsOf } from "../../metrics";
import { EvaluationPlots } from "./points";

/** The metrics shown, best known first; the service has more. */
const SHOWN = ["accuracy", "auc", "f1", "cross_entropy", "r2", "rmse", "mae", "mse", "sse"];
const SPLITS = ["test", "validation", "train"] as const;

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
  const folds = evaluation["folds"];
  const columns: [string, Metrics][] = [
    ...splits.map((name): [string, Metrics] => [name, evaluation[name] ?? {}]),
    ...(folds ? [["deviation over folds", folds["std"] as Metrics] satisfies [string, Metrics]] : []),
    ...baselines.map((name): [string, Metrics] => [`${name} baseline`, baseline[name] as Metrics]),
  ];
  const rows = SHOWN.filter((name) => columns.some(([, metrics]) => typeof metrics[name] === "number"));
  return (
    <section class="card" aria-labelledby="metrics">
      <h2 id="metrics">Metrics</h2>
      <p class="quiet small">
        Metrics of the model from the best epoch. The constant baseline predicts the training mean or class frequencies
        {baselines.includes("linear") && "; the linear baseline is a least-squares fit"}
        {folds && "; validation is each row predicted by the members that did not train with it"}
        {typeof baseline["split"] === "string" && `. Baselines are measured on the ${rowsOf(baseline["split"])}`}.
      </p>
      <Scroll label="Table of metrics">
        <table>
          <thead>
            <tr>
              <th scope="col">Metric</th>
              {columns.map(([name]) => (
                <th scope="col" class="right" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((name) => (
              <tr key={name}>
                <th scope="row">{metricTitle(name)}</th>
                {columns.map(([column, metrics]) => (
                  <td class="right" key={column}>
                    {shown(name, metrics[name])}
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

function shown(name: string, value: unknown): string {
  return name === "accuracy" && typeof value === "number" ? percent(value) : number(value);
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
  const change = found.metric === "r2" ? "drop in R²" : "increase in cross-entropy";
  return (
    <section class="card" aria-labelledby="importance">
      <h2 id="importance">Feature importance</h2>
      <p class="quiet small">
        Permutation importance: {change} when a column is shuffled, on the {rowsOf(found.split)}.
      </p>
      <table class="bars">
        <caption class="unseen">Feature importance</caption>
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
