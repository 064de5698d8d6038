/** A component that loads its code on first use, which keeps the first page load small. */

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Failure } from "./failure";

export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  let loaded: ComponentType<Props> | null = null;
  return function Lazy(props: Props) {
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
