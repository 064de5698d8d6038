/** The trials of a sweep, best first. */

import type { Sweep, SweepTrial } from "../../api";
import { Scroll } from "../../components/scroll";
import { RunState } from "../../components/state";
import { count, number } from "../../format";
import { metricTitle } from "../../metrics";
import { href } from "../../router";
import type { Marking } from "./marks";
import { labelOf, textOf, valueOf } from "./parameters";

export function Leaderboard({ sweep, trials, marking }: { sweep: Sweep; trials: SweepTrial[]; marking: Marking }) {
  const paths = Object.keys(sweep.space);
  return (
    <section class="card" aria-labelledby="leaderboard">
      <h2 id="leaderboard">Leaderboard</h2>
      <Scroll label="Table of trials">
        <table class="leaderboard">
          <thead>
            <tr>
              <th scope="col" class="right">
                Rank
              </th>
              <th scope="col">Run</th>
              <th scope="col" class="right">
                {metricTitle(sweep.metric.name)} ({sweep.metric.split})
              </th>
              {paths.map((path) => (
                <th scope="col" class="right" key={path} title={path}>
                  {labelOf(path)}
                </th>
              ))}
              <th scope="col" class="right">
                Epochs
              </th>
              <th scope="col">State</th>
            </tr>
          </thead>
          <tbody>
            {trials.map((trial, place) => (
              <tr
                key={trial.trial}
                class={trial.trial === marking.marked ? "marked" : ""}
                onMouseEnter={() => marking.mark(trial.trial)}
                onMouseLeave={() => marking.mark(null)}
                onFocusIn={() => marking.mark(trial.trial)}
                onFocusOut={() => marking.mark(null)}
              >
                <td class="right">{valueOf(trial) === null ? "–" : place + 1}</td>
                <th scope="row" class="nowrap">
                  <span class="swatch" style={{ background: marking.colorOf(trial) }} /> <TrialLink trial={trial} />
                </th>
                <td class="right">{number(trial.value)}</td>
                {paths.map((path) => (
                  <td class="right nowrap" key={path}>
                    {textOf(trial.parameters[path])}
                  </td>
                ))}
                <td class="right">{count(trial.epochs)}</td>
                <td>
                  <RunState run={trial} />
                  {trial.error && <small class="trial wrong">{trial.error.detail}</small>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

export function TrialLink({ trial }: { trial: SweepTrial }) {
  const name = `Trial ${trial.trial}`;
  return trial.run ? <a href={href("runs", trial.run)}>{name}</a> : <>{name}</>;
}
