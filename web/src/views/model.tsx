import type { ViewProps } from "../app";

export function Models(_props: ViewProps) {
  return <h1>Models</h1>;
}
