/** Formats values for reading. */

// min2: no separator in four-digit numbers, because they may be years.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0, useGrouping: "min2" });
const rounded = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: "min2" });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const dateAndTime = new Intl.DateTimeFormat("en", {
  dateStyle: "medium",
  timeStyle: "short",
  hourCycle: "h23",
});

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : whole.format(value);
}

/** `count(2, "row")` → "2 rows" */
export function counted(value: number, noun: string): string {
  return `${whole.format(value)} ${noun}${value === 1 ? "" : "s"}`;
}

export function number(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return powered(value);
  return rounded.format(value);
}

/** A short number for an axis: 1500000 → "1.5M" */
export function tick(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e15 || (size !== 0 && size < 1e-3)) return powered(value);
  return size < 10_000 ? rounded.format(value) : short.format(value);
}

/** 3111000000 → "3.111e9" */
function powered(value: number): string {
  return value.toExponential(3).replace(/\.?0*e\+?/, "e");
}

export function percent(value: number): string {
  return `${(value * 100).toFixed(value > 0 && value < 0.0995 ? 1 : 0)} %`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value, 0];
  while (size >= 1000 && unit < units.length - 1) [size, unit] = [size / 1000, unit + 1];
  return `${unit === 0 ? size : size.toPrecision(3)} ${units[unit]}`;
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 59.5) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function time(text: string): string {
  return dateAndTime.format(new Date(text));
}

/** Shortens a time from the data: drops a zero time of day, the "T" and the "Z". */
export function moment(text: string): string {
  return text.replace(/T00:00:00(\.0+)?Z?$/, "").replace(/Z$/, "").replace("T", " ");
}

export function cell(value: unknown): string {
  return value === null || value === undefined ? "" : String(value);
}

/** "it is so" → "It is so." */
export function sentence(text: string): string {
  const begun = `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
