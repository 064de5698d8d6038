import type { Run, TrajectorySubject } from "../../api";
import type { Net } from "../../learning/net";
import type { RunTrajectory } from "../../learning/trajectory";

/** One epoch of a run, as the plots need it. */
export interface Shown {
  run: Run;
  trajectory: RunTrajectory;
  subject: TrajectorySubject;
  net: Net;
  /** the parameters after that epoch */
  values: Float32Array;
  /** index of the frame in the trajectory */
  place: number;
  /** whether the next epoch follows at once: speed then matters more than detail */
  isMoving: boolean;
}
