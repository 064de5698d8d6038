/** Renders the Markdown that model cards use: headings, paragraphs, lists, tables, code. */

import type { ComponentChildren } from "preact";
import { Scroll } from "./scroll";

export function Markdown({ text }: { text: string }) {
  return <div class="markdown">{blocksOf(text).map((block, place) => <MarkdownBlock key={place} lines={block} />)}</div>;
}

/** Splits the text at blank lines. */
function blocksOf(text: string): string[][] {
  const blocks: string[][] = [];
  let current: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    if (line.trim() === "") {
      if (current.length > 0) blocks.push(current);
      current = [];
    } else current.push(line);
  }
  return current.length > 0 ? [...blocks, current] : blocks;
}

function MarkdownBlock({ lines }: { lines: string[] }) {
  const [first = ""] = lines;
  const heading = /^(#{1,6})\s+(.*)$/.exec(first);
  if (heading) {
    // The card is inside a section with an h3, so its headings begin at h4.
    return (heading[1]?.length ?? 1) === 1 ? <h4>{inline(heading[2] ?? "")}</h4> : <h5>{inline(heading[2] ?? "")}</h5>;
  }
  if (lines.every((line) => line.startsWith("    "))) {
    return <pre tabIndex={0}>{lines.map((line) => line.slice(4)).join("\n")}</pre>;
  }
  if (lines.every((line) => line.startsWith("|"))) return <MarkdownTable lines={lines} />;
  if (/^[-*]\s/.test(first)) {
    const items = lines.join("\n").split(/\n(?=[-*]\s)/);
    return (
      <ul>
        {items.map((item, place) => (
          <li key={place}>{inline(item.replace(/^[-*]\s+/, "").replaceAll("\n", " "))}</li>
        ))}
      </ul>
    );
  }
  return <p>{inline(lines.join(" "))}</p>;
}

function MarkdownTable({ lines }: { lines: string[] }) {
  const [head, rule, ...rows] = lines.map(cells);
  const body = rule?.every((text) => /^:?-+:?$/.test(text)) ? rows : [rule ?? [], ...rows];
  return (
    <Scroll label={`Table: ${head?.join(", ")}`}>
      <table>
        <thead>
          <tr>
            {head?.map((text, place) => (
              <th scope="col" key={place}>
                {inline(text)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {body.map((row, place) => (
            <tr key={place}>
              {row.map((text, column) => (
                <td key={column}>{inline(text)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

/** Splits a row at its bars, except at bars that are escaped or in code. */
function cells(line: string): string[] {
  const found: string[] = [];
  let [text, isCode] = ["", false];
  for (let at = 1; at < line.length; at++) {
    const letter = line[at] ?? "";
    if (letter === "\\" && line[at + 1] === "|") text += line[++at];
    else if (letter === "|" && !isCode) {
      found.push(text.trim());
      text = "";
    } else {
      if (letter === "`") isCode = !isCode;
      text += letter;
    }
  }
  return text.trim() ? [...found, text.trim()] : found;
}

function inline(text: string): ComponentChildren[] {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part, place) => {
    if (part.startsWith("`") && part.endsWith("`") && part.length > 2) return <code key={place}>{part.slice(1, -1)}</code>;
    if (part.startsWith("**") && part.length > 4) return <strong key={place}>{part.slice(2, -2)}</strong>;
    return part.replace(/\\([\\`*_{}[\]()#+\-.!|<>])/g, "$1");
  });
}
