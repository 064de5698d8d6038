/** Client-side routing. The URL's fragment holds the address of the view, so one file serves every view. */

import { useEffect, useState } from "preact/hooks";

export interface Route {
  /** `#/runs/run_1` → `["runs", "run_1"]` */
  path: string[];
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: new URLSearchParams(query),
  };
}

/** Returns the link to a view: `href("runs", run.id)`. */
export function href(...path: string[]): string {
  return `#/${path.map(encodeURIComponent).join("/")}`;
}

export function hrefWith(path: string[], query: Record<string, string>): string {
  const text = new URLSearchParams(query).toString();
  return text ? `${href(...path)}?${text}` : href(...path);
}

export function go(target: string): void {
  location.hash = target;
}

/** Changes the address without a history entry; the view stays the same. */
export function replace(target: string): void {
  history.replaceState(null, "", target);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const update = () => setRoute(parse(location.hash));
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return route;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a % that begins no escape
  }
}
