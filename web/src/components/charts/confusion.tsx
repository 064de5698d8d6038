/** The confusion matrix; a cell with more rows is darker. */

import { count, percent } from "../../format";
import { rowsOf } from "../../metrics";
import { Scroll } from "../scroll";

interface Props {
  labels: string[];
  /** a row per true class, a column per predicted one */
  matrix: number[][];
  split: string;
}

const MOST = 20; // classes; a larger matrix is not shown

export function Confusion({ labels, matrix, split }: Props) {
  if (labels.length > MOST) {
    return <p class="quiet">The confusion matrix of {count(labels.length)} classes is too large to show.</p>;
  }
  return (
    <Scroll label="Table of the confusion matrix">
      <table class="confusion">
        <caption>On the {rowsOf(split)}: actual classes in rows, predicted classes in columns</caption>
        <thead>
          <tr>
            <td />
            {labels.map((label) => (
              <th scope="col" class="right" key={label} title={label}>
                {label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {matrix.map((row, truth) => {
            const total = row.reduce((sum, cell) => sum + cell, 0);
            return (
              <tr key={labels[truth]}>
                <th scope="row" title={labels[truth]}>
                  {labels[truth]}
                </th>
                {row.map((cell, predicted) => (
                  <Cell
                    key={labels[predicted]}
                    size={cell}
                    share={total ? cell / total : 0}
                    isRight={truth === predicted}
                  />
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scroll>
  );
}

function Cell({ size, share, isRight }: { size: number; share: number; isRight: boolean }) {
  const color = isRight ? "var(--accent)" : "var(--second)";
  const shade = `color-mix(in srgb, ${color} ${Math.round(share * 45)}%, transparent)`;
  return (
    <td class="right" style={{ background: shade }} title={`${percent(share)} of this actual class`}>
      {count(size)}
    </td>
  );
}
