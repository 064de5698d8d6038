import type { Run, TrajectorySubject } from "../../api";
import type { Net } from "../../learning/net";
import type { RunTrajectory } from "../../learning/trajectory";

/** One epoch of a run, which a picture is drawn of. */
export interface Shown {
  run: Run;
  trajectory: RunTrajectory;
  subject: TrajectorySubject;
  net: Net;
  /** the parameters after the epoch that is shown */
  values: Float32Array;
  /** which of the trajectory's frames that is */
  place: number;
  /** whether the next epoch follows at once: then speed counts more than detail */
  isMoving: boolean;
}
