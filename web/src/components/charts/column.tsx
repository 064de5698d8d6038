/** The distribution of a column: a histogram of numbers, the most frequent values otherwise. */

import type { Column, Histogram, TopValue } from "../../api";
import { cell, count, moment, number } from "../../format";

const WIDTH = 240;
const HEIGHT = 64;

export function ColumnPicture({ column, rows }: { column: Column; rows: number }) {
  if (column.histogram && column.histogram.counts.length > 0) {
    return <Bars name={column.name} histogram={column.histogram} />;
  }
  if (column.top && column.top.length > 0) {
    return <Top name={column.name} top={column.top} rows={rows} distinct={column.distinct} />;
  }
  return <p class="quiet small picture-height">{summary(column)}</p>;
}

function summary(column: Column): string {
  if (column.distinct === 0) return "All values are missing.";
  const { min, max } = column;
  if (typeof min === "string" && typeof max === "string") return `${moment(min)} – ${moment(max)}`;
  return "Too many distinct values to plot.";
}

function Bars({ name, histogram }: { name: string; histogram: Histogram }) {
  const { counts, edges } = histogram;
  const most = Math.max(...counts, 1);
  const step = WIDTH / counts.length;
  const bins = counts.map((size, place) => ({
    size,
    range: `${number(edges[place])} – ${number(edges[place + 1])}`,
  }));
  const fullest = bins[counts.indexOf(most)];
  return (
    <figure class="picture">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Histogram of ${name}: the largest bin, ${fullest?.range}, holds ${count(most)} values`}
      >
        {bins.map(({ size, range }, place) => {
          const height = size && Math.max(1.5, (size / most) * (HEIGHT - 2));
          return (
            <rect
              key={range + String(place)}
              x={place * step + 0.75}
              y={HEIGHT - height}
              width={Math.max(step - 1.5, 0.5)}
              height={height}
            >
              <title>{`${range}: ${count(size)}`}</title>
            </rect>
          );
        })}
      </svg>
      <figcaption class="row apart quiet">
        <span>{number(edges[0])}</span>
        <span>{number(edges[edges.length - 1])}</span>
      </figcaption>
      <AsTable name={name} head="Values" rows={bins.map(({ range, size }) => [range, size])} />
    </figure>
  );
}

interface TopProps {
  name: string;
  top: TopValue[];
  rows: number;
  distinct: number;
}

function Top({ name, top, rows, distinct }: TopProps) {
  const shown = top.slice(0, 4);
  const rest = distinct - shown.length;
  return (
    <figure class="picture">
      <table class="top">
        <caption class="unseen">Most frequent values of {name}</caption>
        <tbody>
          {shown.map(({ value, count: size }) => (
            <tr key={cell(value)}>
              <th scope="row">{cell(value) || "(empty)"}</th>
              <td>
                <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <rect x="0" y="0" width={(100 * size) / Math.max(rows, 1)} height="10" />
                </svg>
              </td>
              <td class="right">{count(size)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <figcaption class="quiet">{rest > 0 ? `and ${count(rest)} more` : " "}</figcaption>
    </figure>
  );
}

interface AsTableProps {
  name: string;
  head: string;
  rows: [string, number][];
}

function AsTable({ name, head, rows }: AsTableProps) {
  return (
    <div class="unseen"><table>
      <caption>{name}</caption>
      <thead>
        <tr>
          <th scope="col">{head}</th>
          <th scope="col">Rows</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(([range, size]) => (
          <tr key={range}>
            <td>{range}</td>
            <td>{size}</td>
          </tr>
        ))}
      </tbody>
    </table></div>
  );
}
