import type { ViewProps } from "../app";

export function Datasets(_props: ViewProps) {
  return <h1>Datasets</h1>;
}
