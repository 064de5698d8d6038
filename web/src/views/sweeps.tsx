import type { ViewProps } from "../app";
import "../styles/sweeps.css";
import { SweepDetail } from "./sweeps/detail";
import { SweepList } from "./sweeps/list";

export function Sweeps({ route }: ViewProps) {
  const id = route.path[1];
  return id === undefined ? <SweepList /> : <SweepDetail id={id} />;
}
