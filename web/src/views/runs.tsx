import type { ViewProps } from "../app";
import { Compare } from "./runs/compare";
import { Detail } from "./runs/detail";
import { List } from "./runs/list";

export function Runs({ route }: ViewProps) {
  const id = route.path[1];
  const compared = route.query.get("compare");
  if (id !== undefined) return <Detail id={id} />;
  return compared ? <Compare ids={compared.split(",")} /> : <List />;
}
