import type { ViewProps } from "../app";
import { List } from "./datasets/list";
import { Detail } from "./datasets/detail";

export function Datasets({ route }: ViewProps) {
  const id = route.path[1];
  return id === undefined ? <List /> : <Detail id={id} />;
}
