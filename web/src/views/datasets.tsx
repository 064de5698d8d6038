import type { ViewProps } from "../app";
import { DatasetList } from "./datasets/list";
import { DatasetDetail } from "./datasets/detail";

export function Datasets({ route }: ViewProps) {
  const id = route.path[1];
  return id === undefined ? <DatasetList /> : <DatasetDetail id={id} />;
}
