import type { ViewProps } from "../app";
import { Compare } from "./runs/compare";
import { RunDetail } from "./runs/detail";
import { RunList } from "./runs/list";

export function Runs({ route }: ViewProps) {
  const id = route.path[1];
  const compared = route.query.get("compare");
  if (id !== undefined) return <RunDetail id={id} />;
  return compared ? <Compare ids={compared.split(",")} /> : <RunList />;
}
