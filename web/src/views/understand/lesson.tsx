/** All plots of one run, for the same epoch. */

import { useMemo } from "preact/hooks";
import { call, getRun, type Run } from "../../api";
import { Failure } from "../../components/failure";
import { RunState } from "../../components/state";
import { lineProblem } from "../../learning/line";
import { netOf } from "../../learning/net";
import { type RunTrajectory, useTrajectory } from "../../learning/trajectory";
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
  const { trajectory, error } = useTrajectory(id);
  const isOver = run.data !== null && ENDED.has(run.data.state);
  useInterval(run.reload, run.data && !isOver ? 1 : null);
  if (!run.data) {
    if (run.error !== null) return <Failure error={run.error} retry={run.reload} />;
    return <h1 class="quiet">Run</h1>;
  }
  return (
    <>
      <LessonHead run={run.data} />
      {error !== null && <Failure error={error} />}
      {trajectory && <Pictures run={run.data} trajectory={trajectory} />}
      {!trajectory && error === null && <p class="quiet">Loading…</p>}
    </>
  );
}

function LessonHead({ run }: { run: Run }) {
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
          Run details
        </a>
      </div>
    </div>
  );
}

function Pictures({ run, trajectory }: { run: Run; trajectory: RunTrajectory }) {
  const { subject } = trajectory;
  const net = useMemo(() => (subject ? netOf(subject) : null), [subject]);
  const problem = useMemo(() => (subject ? lineProblem(subject) : null), [subject]);
  const losses = useLosses(run.id, trajectory.epochs.at(-1) ?? 0, trajectory.isFinal);
  const player = usePlayer(trajectory.epochs.length);
  const values = trajectory.frames[player.place];
  if (!subject || !net || !values) return <NoFrames run={run} trajectory={trajectory} />;
  const shown = { run, trajectory, subject, net, values, place: player.place, isMoving: player.isMoving };
  return (
    <>
      <Player player={player} trajectory={trajectory} losses={losses} isLive={!trajectory.isFinal} epochs={configOf(run).epochs} />
      <div class="beside">
        <Shape {...shown} />
        {losses.length > 0 && <Losses losses={losses} epoch={trajectory.epochs[player.place] ?? 0} />}
      </div>
      {problem ? <LineLesson {...shown} problem={problem} /> : <Layers {...shown} />}
      <Rates run={run} subject={subject} problem={problem} />
    </>
  );
}

function NoFrames({ run, trajectory }: { run: Run; trajectory: RunTrajectory }) {
  if (!trajectory.isFinal) {
    return <p class="quiet">The run is {run.state}. The plots appear after its first epoch.</p>;
  }
  return (
    <div class="empty">
      <p>
        This run stored no parameters per epoch. The service stores them for networks of up to 5000 parameters, such as
        two layers of 64 units with a few features, from the first epoch on.
      </p>
      <a class="button primary" href={`${href("new")}?from=${run.id}`}>
        Train a smaller network
      </a>
    </div>
  );
}
