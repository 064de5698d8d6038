/** The curves as a table, for screen readers and for exact values. */

import { useState } from "preact/hooks";
import { Scroll } from "../../components/scroll";
import { number } from "../../format";
import { save } from "../../save";
import { AXES, type Axis, csvOf, type Curve } from "./curve-store";

const ROWS = 25; // of the table

export function ValueTable({ curves, axis, stem }: { curves: Curve[]; axis: Axis; stem: string }) {
  const [isOpen, setOpen] = useState(false);
  const longest = curves.reduce<Curve | null>(
    (best, curve) => (best && best.seq.length >= curve.seq.length ? best : curve),
    null,
  );
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Values as a table</summary>
      {isOpen && longest && (
        <div class="stack">
          <Scroll label="Table of values">
            <table>
              <thead>
                <tr>
                  <th scope="col">{AXES[axis]}</th>
                  {curves.map((curve) => (
                    <th scope="col" class="right" key={curve.split}>
                      {curve.split}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {evenly(longest[axis].length).map((place) => {
                  const x = longest[axis][place] ?? 0;
                  return (
                    <tr key={place}>
                      <td>{number(x)}</td>
                      {curves.map((curve) => (
                        <td class="right" key={curve.split}>
                          {number(curve.value[curve[axis].findLastIndex((each) => each <= x)])}
                        </td>
                      ))}
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </Scroll>
          <div class="actions">
            <button
              type="button"
              class="small"
              onClick={() => save(new Blob([csvOf(curves)], { type: "text/csv" }), `${stem}.csv`)}
            >
              Download as CSV
            </button>
          </div>
        </div>
      )}
    </details>
  );
}

/** Returns evenly spaced indexes, including the last one. */
function evenly(size: number): number[] {
  const count = Math.min(size, ROWS);
  return Array.from({ length: count }, (_, place) =>
    count === 1 ? 0 : Math.round((place * (size - 1)) / (count - 1)),
  );
}
