import type { Run, TrajectorySubject } from "../../api";
import type { Net } from "../../learning/net";
import type { Film } from "../../learning/trajectory";

/** One epoch of a run, which a picture is drawn of. */
export interface Shown {
  run: Run;
  film: Film;
  subject: TrajectorySubject;
  net: Net;
  /** the parameters after the epoch that is shown */
  values: Float32Array;
  /** which of the film's frames that is */
  place: number;
  /** whether the next epoch follows at once: then speed counts more than detail */
  isMoving: boolean;
}
