/** A view whose code is fetched when it is first looked at, so that the first load stays small. */

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { ViewProps } from "../app";
import { Failure } from "./failure";

export function lazy(load: () => Promise<ComponentType<ViewProps>>): ComponentType<ViewProps> {
  let loaded: ComponentType<ViewProps> | null = null;
  return function Lazy(props: ViewProps) {
    const [, setRound] = useState(0);
    const [error, setError] = useState<unknown>(null);
    useEffect(() => {
      if (loaded) return;
      load().then((view) => {
        loaded = view;
        setRound((round) => round + 1);
      }, setError);
    }, []);
    const View = loaded;
    if (View) return <View {...props} />;
    return error ? <Failure error={error} /> : <p class="quiet">Loading…</p>;
  };
}
