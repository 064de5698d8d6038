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

const FEW_POWERS = 2; // powers of ten; a shorter range also gets ticks at 2 and 5
const MOST_POWERS = 7;

/** Returns the logarithms of round tick values in a range of logarithms. */
export function powers([least, most]: Range): number[] {
  const span = most - least;
  const between = span < FEW_POWERS ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil(span / MOST_POWERS));
  const found: number[] = [];
  for (let power = Math.floor(least); power <= most; power++) {
    if (power % step !== 0) continue;
    for (const each of between) {
      const at = power + Math.log10(each);
      if (at >= least && at <= most) found.push(at);
    }
  }
  return found;
}
