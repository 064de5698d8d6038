/**
 * Returns the exponential moving average, corrected for its start at zero as in Adam, so that the
 * first values are no lower than the others. Values that are not finite leave a gap.
 */
export function smoothed(values: number[], weight: number): number[] {
  let [average, power] = [0, 1];
  return values.map((value) => {
    if (!Number.isFinite(value)) return Number.NaN;
    average = weight * average + (1 - weight) * value;
    power *= weight;
    return average / (1 - power);
  });
}
