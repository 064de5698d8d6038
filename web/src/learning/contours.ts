/** Contour lines by marching squares. */

export interface Grid {
  columns: number;
  rows: number;
  /** row by row */
  heights: Float64Array;
}

export type Segment = [number, number, number, number];

export function gridOf(columns: number, rows: number, height: (u: number, v: number) => number): Grid {
  const heights = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      heights[row * columns + column] = height(column / (columns - 1), row / (rows - 1));
    }
  }
  return { columns, rows, heights };
}

/** Returns contour levels that are denser near the minimum. */
export function levelsOf({ heights }: Grid, count: number, bottom: number): number[] {
  const top = heights.reduce((one, other) => (Number.isFinite(other) ? Math.max(one, other) : one), -Infinity);
  return Array.from({ length: count }, (_, place) => bottom + (top - bottom) * ((place + 0.6) / count) ** 2.5);
}

/** Returns the contour of one level; coordinates are shares of width and height. */
export function contour({ columns, rows, heights }: Grid, level: number): Segment[] {
  const found: Segment[] = [];
  const at = (column: number, row: number) => heights[row * columns + column] ?? NaN;
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const corners = [at(column, row), at(column + 1, row), at(column + 1, row + 1), at(column, row + 1)];
      const points = crossings(corners, level).map(
        ([u, v]): [number, number] => [(column + u) / (columns - 1), (row + v) / (rows - 1)],
      );
      for (let place = 0; place + 1 < points.length; place += 2) {
        const [from, to] = [points[place], points[place + 1]];
        if (from && to) found.push([...from, ...to]);
      }
    }
  }
  return found;
}

const ORIGIN: [number, number] = [0, 0];
const CORNERS: [number, number][] = [[0, 0], [1, 0], [1, 1], [0, 1]];

/** Returns the points where the contour crosses the sides of a square: none, two or, at a saddle, four. */
function crossings(heights: number[], level: number): [number, number][] {
  const found: [number, number][] = [];
  for (let side = 0; side < 4; side++) {
    const [low, high] = [heights[side] ?? NaN, heights[(side + 1) % 4] ?? NaN];
    if (low < level === high < level || !Number.isFinite(low + high)) continue;
    const share = (level - low) / (high - low);
    const [from, to] = [CORNERS[side] ?? ORIGIN, CORNERS[(side + 1) % 4] ?? ORIGIN];
    found.push([from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1])]);
  }
  return found;
}
