/** Plots of the evaluation: predicted vs. actual and residuals for regression, ROC curves for classes. */

import { useState } from "preact/hooks";
import { call, type Evaluation, getRunEvaluation, type RocCurve, type Run, type TargetPoints } from "../../api";
import { type Series, Xy } from "../../components/charts/xy";
import { Failure } from "../../components/failure";
import { count, number } from "../../format";
import { rowsOf } from "../../metrics";
import { useResource } from "../../resource";

export function EvaluationPlots({ run, split }: { run: Run; split: string }) {
  const found = useResource(
    (signal) => call(getRunEvaluation({ path: { run_id: run.id }, signal })),
    [run.id, run.state],
  );
  if (found.error !== null) {
    return (
      <section class="card" aria-label="Evaluation plots">
        <Failure error={found.error} retry={found.reload} />
      </section>
    );
  }
  const { data } = found;
  if (!data) return <section class="card waiting" aria-label={`Evaluation plots of the ${rowsOf(split)}`} />;
  return (
    <>
      {data.points.map((points) => (
        <PredictedVsActual key={points.target} points={points} evaluation={data} />
      ))}
      {data.curves.length > 0 && <Roc curves={data.curves} evaluation={data} />}
    </>
  );
}

function about({ split, rows, shown }: Evaluation): string {
  const size = shown < rows ? `${count(shown)} of ${count(rows)}` : `all ${count(rows)}`;
  return `Based on ${size} ${rowsOf(split)}.`;
}

type PlotKind = "predicted" | "residuals";

function PredictedVsActual({ points, evaluation }: { points: TargetPoints; evaluation: Evaluation }) {
  const [view, setView] = useState<PlotKind>("predicted");
  const { actual, predicted, target } = points;
  const errors = predicted.map((value, place) => value - (actual[place] ?? 0));
  const isResidual = view === "residuals";
  const pairs = actual.map((value, place): [number, number] =>
    isResidual ? [predicted[place] ?? 0, errors[place] ?? 0] : [value, predicted[place] ?? 0],
  );
  const title = isResidual ? "Residuals" : "Predicted vs. actual";
  return (
    <section class="card" aria-label={`${title} ${target}`}>
      <div class="row apart">
        <h2>{title}</h2>
        <div class="segments" role="group" aria-label="Plot">
          {(["predicted", "residuals"] as const).map((each) => (
            <button
              key={each}
              type="button"
              class="small"
              aria-pressed={view === each}
              onClick={() => setView(each)}
            >
              {each}
            </button>
          ))}
        </div>
      </div>
      <p class="quiet small">
        {about(evaluation)}{" "}
        Exact predictions lie on the {isResidual ? "zero line" : "diagonal"}.
      </p>
      <Xy
        series={[{ label: target, points: pairs, kind: "points", color: "--accent" }]}
        xLabel={isResidual ? `predicted ${target}` : `actual ${target}`}
        yLabel={isResidual ? "predicted − actual" : `predicted ${target}`}
        guide={isResidual ? "zero" : "diagonal"}
        label={`${title}. ${spread(errors)}`}
      />
      <p class="small">{spread(errors)}</p>
    </section>
  );
}

/** Summarizes the absolute errors in a sentence. */
function spread(errors: number[]): string {
  const sorted = errors.map(Math.abs).sort((one, other) => one - other);
  const at = (share: number) => number(sorted[Math.ceil(share * (sorted.length - 1))]);
  if (sorted.length === 0) return "No predictions.";
  return `50 % of the predictions are within ${at(0.5)} of the actual value, 90 % within ${at(0.9)}.`;
}

const COLORS = ["--accent", "--second", "--good", "--line-4", "--line-5", "--line-6", "--line-7", "--line-8"];

function Roc({ curves, evaluation }: { curves: RocCurve[]; evaluation: Evaluation }) {
  const drawn = curves.filter((curve) => curve.auc !== null);
  const series = drawn.map(
    (curve, place): Series => ({
      label: curve.label,
      kind: "line",
      color: colorOf(place),
      points: curve.false_positive_rate.map((x, index) => [x, curve.true_positive_rate[index] ?? 0]),
    }),
  );
  return (
    <section class="card" aria-labelledby="roc">
      <h2 id="roc">ROC curve</h2>
      <p class="quiet small">
        {about(evaluation)} A perfect classifier reaches the upper left corner; random guessing lies on the diagonal.
      </p>
      <Xy
        series={series}
        xLabel="False positive rate"
        yLabel="True positive rate"
        guide="diagonal"
        bounds={{ x: [-0.02, 1.02], y: [-0.02, 1.02] }}
        label={`ROC curves: ${drawn.map((curve) => `${curve.label} AUC ${number(curve.auc)}`).join(", ")}`}
      />
      <table>
        <caption class="unseen">Area under the ROC curve (AUC)</caption>
        <tbody>
          {curves.map((curve) => (
            <tr key={curve.label}>
              <th scope="row">
                <span
                  class="swatch"
                  style={{ background: `var(${colorOf(drawn.indexOf(curve))})` }}
                />{" "}
                {curve.label}
              </th>
              <td class="right">{curve.auc === null ? "AUC not defined" : `AUC ${number(curve.auc)}`}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function colorOf(place: number): string {
  return COLORS[place % COLORS.length] ?? "--quiet";
}
