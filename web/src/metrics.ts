/** Names of evaluation metrics and of splits. */

export type Metrics = Record<string, unknown>;

const TITLES: Record<string, string> = {
  accuracy: "Accuracy",
  auc: "ROC AUC",
  cross_entropy: "Cross-entropy",
  f1: "Macro F1",
  loss: "Loss",
  loss_std: "Deviation of the loss over folds",
  mae: "MAE",
  mse: "MSE",
  r2: "R²",
  rmse: "RMSE",
  sse: "SSE",
};

export function metricTitle(name: string): string {
  return TITLES[name] ?? name;
}

/** `rowsOf("train")` → "training rows" */
export function rowsOf(split: string): string {
  return `${split === "train" ? "training" : split} rows`;
}
