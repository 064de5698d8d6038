import type { ViewProps } from "../app";

export function NewRun(_props: ViewProps) {
  return <h1>New run</h1>;
}
