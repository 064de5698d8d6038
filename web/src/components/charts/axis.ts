/** Value ranges of axes, and round tick values in them. */

export type Range = [number, number];

/** Returns about `count` round numbers inside a range. */
export function ticks([least, most]: Range, count: number): number[] {
  const rough = (most - least) / count;
  if (!(rough > 0) || !Number.isFinite(rough)) return [];
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((each) => each * size >= rough) ?? 10) * size;
  const first = Math.ceil(least / step);
  const found = Math.floor(most / step) - first + 1;
  return Array.from({ length: Math.max(0, found) }, (_, place) => Number(((first + place) * step).toPrecision(12)));
}
