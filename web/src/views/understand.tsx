import type { ViewProps } from "../app";

export function Understand(_props: ViewProps) {
  return <h1>Understand</h1>;
}
