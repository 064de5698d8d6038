import type { ViewProps } from "../app";

export function Runs(_props: ViewProps) {
  return <h1>Runs</h1>;
}
