/** All pictures of one run, which show the same epoch. */

import { useMemo } from "preact/hooks";
import { call, getRun, type Run } from "../../api";
import { Failure } from "../../components/failure";
import { RunState } from "../../components/state";
import { lineProblem } from "../../learning/line";
import { netOf } from "../../learning/net";
import { type Film, useFilm } from "../../learning/trajectory";
import { useInterval, useResource } from "../../resource";
import { href } from "../../router";
import { useLosses } from "./losses";
import { Layers } from "./layers";
import { LineLesson } from "./line-lesson";
import { Losses, Player, usePlayer } from "./player";
import { Rates } from "./rates";
import { Shape } from "./shape";
import { configOf, describeModel, nameOf } from "./words";

const ENDED = new Set<Run["state"]>(["succeeded", "failed", "cancelled"]);

export function Lesson({ id }: { id: string }) {
  const run = useResource((signal) => call(getRun({ path: { run_id: id }, signal })), [id]);
  const { film, error } = useFilm(id);
  const isOver = run.data !== null && ENDED.has(run.data.state);
  useInterval(run.reload, run.data && !isOver ? 1 : null);
  if (!run.data) {
    if (run.error !== null) return <Failure error={run.error} retry={run.reload} />;
    return <h1 class="quiet">Run</h1>;
  }
  return (
    <>
      <Head run={run.data} />
      {error !== null && <Failure error={error} />}
      {film && <Pictures run={run.data} film={film} />}
      {!film && error === null && <p class="quiet">Loading…</p>}
    </>
  );
}

function Head({ run }: { run: Run }) {
  return (
    <div class="row apart">
      <div class="cut">
        <p class="quiet">
          <a href={href("understand")}>Understand</a>
        </p>
        <h1>{nameOf(run)}</h1>
        <p class="quiet">{describeModel(run)}</p>
      </div>
      <div class="row">
        <RunState run={run} />
        <a class="button" href={href("runs", run.id)}>
          The run
        </a>
      </div>
    </div>
  );
}

function Pictures({ run, film }: { run: Run; film: Film }) {
  const { subject } = film;
  const net = useMemo(() => (subject ? netOf(subject) : null), [subject]);
  const problem = useMemo(() => (subject ? lineProblem(subject) : null), [subject]);
  const losses = useLosses(run.id, film.epochs.at(-1) ?? 0, film.isFinal);
  const player = usePlayer(film.epochs.length);
  const values = film.frames[player.place];
  if (!subject || !net || !values) return <NoFrames run={run} film={film} />;
  const shown = { run, film, subject, net, values, place: player.place, isMoving: player.isMoving };
  return (
    <>
      <Player player={player} film={film} losses={losses} isLive={!film.isFinal} epochs={configOf(run).epochs} />
      <div class="beside">
        <Shape {...shown} />
        {losses.length > 0 && <Losses losses={losses} epoch={film.epochs[player.place] ?? 0} />}
      </div>
      {problem ? <LineLesson {...shown} problem={problem} /> : <Layers {...shown} />}
      <Rates run={run} subject={subject} problem={problem} />
    </>
  );
}

function NoFrames({ run, film }: { run: Run; film: Film }) {
  if (!film.isFinal) {
    return <p class="quiet">The run is {run.state}: the pictures begin with its first epoch.</p>;
  }
  return (
    <div class="empty">
      <p>
        This run kept no parameters from epoch to epoch. They are kept for nets of up to 5000 parameters, such as two
        layers of 64 units over a few columns, and from the first epoch on.
      </p>
      <a class="button primary" href={`${href("new")}?from=${run.id}`}>
        Train a smaller net
      </a>
    </div>
  );
}
