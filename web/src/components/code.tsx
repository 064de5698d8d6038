/** Code to copy, in one of several languages. */

import { useState } from "preact/hooks";
import { announce } from "../news";

export function Code({ texts }: { texts: Record<string, string> }) {
  const names = Object.keys(texts);
  const [chosen, choose] = useState(names[0] ?? "");
  const [isCopied, setCopied] = useState(false);
  const text = texts[chosen] ?? "";

  async function copy(): Promise<void> {
    if (!(await copied(text))) return;
    announce("Copied.");
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }

  return (
    <div class="code">
      <div class="row apart">
        <div class="segments" role="group" aria-label="Language">
          {names.map((name) => (
            <button
              key={name}
              type="button"
              class="small"
              aria-pressed={name === chosen}
              onClick={() => choose(name)}
            >
              {name}
            </button>
          ))}
        </div>
        <button type="button" class="small" onClick={() => void copy()}>
          {isCopied ? "Copied" : "Copy"}
        </button>
      </div>
      <pre tabIndex={0}>{text}</pre>
    </div>
  );
}

/** Browsers offer the clipboard API on secure pages only; elsewhere this copies a selection. */
async function copied(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
