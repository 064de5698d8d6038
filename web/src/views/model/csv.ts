/** Parses CSV as the service writes it: commas, quotes only if needed. */
export function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let value = "";
  let isQuoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at] ?? "";
    if (isQuoted) {
      if (letter !== '"') value += letter;
      else if (text[at + 1] === '"') value += text[at++];
      else isQuoted = false;
    } else if (letter === '"') isQuoted = true;
    else if (letter === ",") {
      row.push(value);
      value = "";
    } else if (letter === "\n") {
      rows.push([...row, value]);
      [row, value] = [[], ""];
    } else if (letter !== "\r") value += letter;
  }
  return value || row.length > 0 ? [...rows, [...row, value]] : rows;
}
