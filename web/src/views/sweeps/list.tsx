/** All sweeps, newest first. */

import { call, listSweeps, type Sweep } from "../../api";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { Scroll } from "../../components/scroll";
import { RunState } from "../../components/state";
import { number, time } from "../../format";
import { metricTitle } from "../../metrics";
import { useInterval } from "../../resource";
import { href } from "../../router";
import { TrialLink } from "./leaderboard";
import { hasEnded } from "./live";
import { labelOf } from "./parameters";
import { titleOf } from "./title";

const PAGE = 50; // sweeps

export function SweepList() {
  const list = useList<Sweep>((after, signal) => call(listSweeps({ query: { limit: PAGE, after }, signal })), []);
  const items = list.items ?? [];
  // Refreshes only while a sweep is active, and not once older pages are loaded.
  useInterval(list.reload, items.some((sweep) => !hasEnded(sweep)) && items.length <= PAGE ? 2 : null);
  return (
    <>
      <div>
        <p class="quiet">
          <a href={href("runs")}>Runs</a>
        </p>
        <h1>Sweeps</h1>
      </div>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && (
        <div class="empty">
          <p>No sweeps yet. A sweep trains many runs with different settings: choose “Try settings” on the form of a new run.</p>
          <a class="button primary" href={href("new")}>
            New run
          </a>
        </div>
      )}
      {items.length > 0 && (
        <section class="card" aria-label="All sweeps">
          <Scroll label="Table of sweeps">
            <table>
              <thead>
                <tr>
                  <th scope="col">Sweep</th>
                  <th scope="col">Settings</th>
                  <th scope="col">State</th>
                  <th scope="col" class="right">
                    Trials
                  </th>
                  <th scope="col">Best</th>
                  <th scope="col">Submitted</th>
                </tr>
              </thead>
              <tbody>
                {items.map((sweep) => (
                  <SweepRow key={sweep.id} sweep={sweep} />
                ))}
              </tbody>
            </table>
          </Scroll>
          <More list={list} />
        </section>
      )}
    </>
  );
}

function SweepRow({ sweep }: { sweep: Sweep }) {
  const { best, metric, trials } = sweep;
  return (
    <tr>
      <th scope="row">
        <a href={href("sweeps", sweep.id)}>{titleOf(sweep)}</a>
      </th>
      <td>{Object.keys(sweep.space).map(labelOf).join(", ")}</td>
      <td>
        <RunState run={sweep} />
      </td>
      <td class="right">{trials.total}</td>
      <td class="nowrap">
        {best ? (
          <>
            {metricTitle(metric.name)} {number(best.value)} · <TrialLink trial={best} />
          </>
        ) : (
          "–"
        )}
      </td>
      <td class="quiet nowrap">{time(sweep.created_at)}</td>
    </tr>
  );
}
