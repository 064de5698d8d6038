import type { ViewProps } from "../app";

export function System(_props: ViewProps) {
  return <h1>System</h1>;
}
