/** Axes: from values to a share of the way along the axis, linear, logarithmic, or one place for each word. */

import { tick } from "../../format";
import { powers, type Range, ticks } from "./axis";

export interface Scale {
  /** the share of the way along the axis, from 0 to 1; null for a value without a place on it */
  share: (value: unknown) => number | null;
  /** tick values, about `count` of them, by their share */
  ticks: (count: number) => Tick[];
}

export interface Tick {
  at: number;
  text: string;
}

const WIDE = 30; // the largest value over the smallest, from which an axis is logarithmic

export function linear(range: Range): Scale {
  const [least, most] = range;
  const share = (value: number) => (value - least) / (most - least);
  return {
    share: (value) => (isNumber(value) ? share(value) : null),
    ticks: (count) => ticks(range, count).map((value) => ({ at: share(value), text: tick(value) })),
  };
}

export function logarithmic([least, most]: Range): Scale {
  const range: Range = [Math.log10(least), Math.log10(most)];
  const share = (power: number) => (power - range[0]) / (range[1] - range[0]);
  return {
    share: (value) => (isNumber(value) && value > 0 ? share(Math.log10(value)) : null),
    ticks: (count) => {
      const found = powers(range);
      const step = Math.ceil(found.length / Math.max(count, 2));
      const kept = found.filter((_, place) => place % step === 0);
      return kept.map((power) => ({ at: share(power), text: tick(Number((10 ** power).toPrecision(3))) }));
    },
  };
}

/** A place for each value, evenly spaced. */
export function words(values: readonly unknown[], textOf: (value: unknown) => string): Scale {
  const texts = [...new Set(values.map(textOf))];
  const share = (place: number) => (texts.length === 1 ? 0.5 : place / (texts.length - 1));
  return {
    share: (value) => (texts.includes(textOf(value)) ? share(texts.indexOf(textOf(value))) : null),
    ticks: (count) => {
      const step = Math.ceil(texts.length / Math.max(2 * count, 2));
      return texts.map((text, place) => ({ at: share(place), text })).filter((_, place) => place % step === 0);
    },
  };
}

/** An axis with room around these values; logarithmic if they are above 0 and far apart. */
export function numeric(values: readonly number[]): Scale {
  const found = values.filter(Number.isFinite);
  if (found.length === 0) return linear([0, 1]);
  const [least, most] = [Math.min(...found), Math.max(...found)];
  if (least > 0 && most / least > WIDE) {
    const room = (most / least) ** 0.05;
    return logarithmic([least / room, most * room]);
  }
  const room = (most - least) * 0.06 || Math.abs(most) * 0.1 || 1;
  return linear([least - room, most + room]);
}

function isNumber(value: unknown): value is number {
  return Number.isFinite(value);
}
