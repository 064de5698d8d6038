/** The shell: navigation, the current view, the API key dialog, screen reader messages. */

import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { AskDialog } from "./components/ask";
import { KeyButton, KeyDialog } from "./components/key";
import { lazy } from "./components/lazy";
import { News } from "./components/news";
import icon from "./icon.svg";
import { href, type Route, useRoute } from "./router";
import { Datasets } from "./views/datasets";
import { Runs } from "./views/runs";

export interface ViewProps {
  route: Route;
}

interface Entry {
  path: string;
  title: string;
  view: ComponentType<ViewProps>;
  /** the path of the entry that leads to this view, which is not in the navigation itself */
  below?: string;
}

/** The views in navigation order; the first one is also at `#/`. */
const ENTRIES: Entry[] = [
  { path: "datasets", title: "Datasets", view: Datasets },
  {
    path: "new",
    title: "New run",
    view: lazy(() => import("./views/new-run").then((module) => module.NewRun)),
  },
  { path: "runs", title: "Runs", view: Runs },
  {
    path: "sweeps",
    title: "Sweeps",
    view: lazy(() => import("./views/sweeps").then((module) => module.Sweeps)),
    below: "runs",
  },
  {
    path: "understand",
    title: "Understand",
    view: lazy(() => import("./views/understand").then((module) => module.Understand)),
  },
  {
    path: "models",
    title: "Models",
    view: lazy(() => import("./views/model").then((module) => module.Models)),
  },
  {
    path: "system",
    title: "System",
    view: lazy(() => import("./views/system").then((module) => module.System)),
  },
];

export function App() {
  const route = useRoute();
  const entry = entryOf(route);
  const main = useFocusOnMove(route, entry);
  const View = entry?.view ?? NotFound;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => skip(event, main.current)}>
        Skip to content
      </a>
      <header class="shell">
        <a class="brand" href={href()}>
          <img src={icon} alt="" width="22" height="22" />
          descent
        </a>
        <Navigation current={entry} />
        <KeyButton />
      </header>
      <main id="main" tabIndex={-1} ref={main}>
        <View route={route} key={route.path.join("/")} />
      </main>
      <KeyDialog />
      <AskDialog />
      <News />
    </>
  );
}

function Navigation({ current }: { current: Entry | undefined }) {
  const shown = current?.below ?? current?.path;
  return (
    <nav aria-label="Views">
      <ul>
        {ENTRIES.filter((entry) => entry.below === undefined).map((entry) => (
          <li key={entry.path}>
            <a href={href(entry.path)} aria-current={entry.path === shown ? "page" : undefined}>
              {entry.title}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function NotFound({ route }: ViewProps) {
  return (
    <>
      <h1>Page not found</h1>
      <p>
        No view has the address “{route.path.join("/")}”. <a href={href()}>Go to Datasets</a>.
      </p>
    </>
  );
}

function entryOf(route: Route): Entry | undefined {
  const [first] = route.path;
  return first === undefined ? ENTRIES[0] : ENTRIES.find((entry) => entry.path === first);
}

/** Moves the focus to a new view, as a browser does for a new page. */
function useFocusOnMove(route: Route, entry: Entry | undefined) {
  const main = useRef<HTMLElement>(null);
  const place = route.path.join("/");
  const [first] = useState(place);
  const moved = useRef(false);
  useEffect(() => {
    document.title = entry ? `${entry.title} · descent` : "descent";
    if (place === first && !moved.current) return;
    moved.current = true;
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place]);
  return main;
}

function skip(event: MouseEvent, main: HTMLElement | null): void {
  event.preventDefault(); // the fragment holds the view's address
  main?.focus();
}
