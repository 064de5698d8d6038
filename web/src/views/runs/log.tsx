/** The log of a run. */

import { call, getLog, type Run } from "../../api";
import { Failure } from "../../components/failure";
import { useReloadOn, useResource } from "../../resource";

export function Log({ run, events }: { run: Run; events: number }) {
  const log = useResource(
    (signal) => call(getLog({ path: { run_id: run.id }, parseAs: "text", signal })),
    [run.id],
  );
  useReloadOn(events, log.reload);
  return (
    <section class="card" aria-labelledby="log">
      <h2 id="log">Log</h2>
      {log.error !== null && <Failure error={log.error} retry={log.reload} />}
      <div class="code">
        <pre tabIndex={0} class="log">
          {lines(log.data)}
        </pre>
      </div>
    </section>
  );
}

/** Shows only the time of each line, because most lines have the same date. */
function lines(text: unknown): string {
  return typeof text === "string" ? text.replace(/^\d{4}-\d\d-\d\dT([\d:.]+)\+00:00/gm, "$1") : "";
}
