/** The versions with their export checks, and the aliases that point to them. */

import { useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { asked } from "../../components/ask";
import { Failure } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { number, time } from "../../format";
import { announce } from "../../news";
import type { Resource } from "../../resource";
import { hrefWith } from "../../router";
import { type KnownAlias, moveAlias, rollBack } from "./aliases";
import { metricsOf } from "./metrics";
import { History } from "./history";

interface Props {
  name: string;
  versions: ModelVersion[];
  shown: number | null;
  aliases: Resource<KnownAlias[]>;
  onMoved: () => void;
}

interface Moved {
  alias: string;
  version: number;
  isNew: boolean;
}

export function Versions({ name, versions, shown, aliases, onMoved }: Props) {
  const [error, setError] = useState<unknown>(null);
  const [moved, setMoved] = useState<Moved | null>(null);
  const [chosen, choose] = useState("");
  const known = aliases.data ?? [];
  const alias = chosen || known[0]?.alias.alias || "champion";
  const current = known.find((each) => each.alias.alias === alias) ?? null;

  async function change(act: () => Promise<KnownAlias>, message: (alias: KnownAlias) => string): Promise<boolean> {
    try {
      setError(null);
      const next = await act();
      const others = known.filter((each) => each.alias.alias !== next.alias.alias);
      aliases.set([...others, next].sort((one, other) => one.alias.alias.localeCompare(other.alias.alias)));
      announce(message(next));
      onMoved();
      return true;
    } catch (refused) {
      setError(refused);
      aliases.reload(); // another client may have moved it
      return false;
    }
  }

  async function move(version: number): Promise<void> {
    const isDone = await change(
      () => moveAlias(name, alias, version, current),
      (next) => `${next.alias.alias} points to version ${version}.`,
    );
    setMoved(isDone ? { alias, version, isNew: current === null } : null);
  }

  async function undo(): Promise<void> {
    if (!current) return;
    await change(
      () => rollBack(name, current),
      (next) => `${next.alias.alias} points to version ${next.alias.version} again.`,
    );
    setMoved(null);
  }

  return (
    <section class="card" aria-labelledby="versions">
      <div class="row apart">
        <h2 id="versions">Versions</h2>
        <AliasChoice known={known} value={alias} onValue={choose} />
      </div>
      {error !== null && <Failure error={error} />}
      {moved && (
        <div class="notice row apart" role="status">
          <span>
            <strong>{moved.alias}</strong> now points to version {moved.version}.
          </span>
          {!moved.isNew && (
            <button type="button" class="small" onClick={() => void undo()}>
              Undo
            </button>
          )}
        </div>
      )}
      <Scroll label="Table of versions">
        <table class="versions">
          <thead>
            <tr>
              <th scope="col">Version</th>
              <th scope="col">Export check</th>
              <th scope="col">Aliases</th>
              <th scope="col">Metrics</th>
              <th scope="col">Created</th>
              <th scope="col">
                <span class="unseen">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {versions.map((version) => (
              <tr key={version.version} class={version.version === shown ? "chosen" : ""}>
                <th scope="row">
                  <a
                    href={hrefWith(["models", name], { version: String(version.version) })}
                    aria-current={version.version === shown ? "true" : undefined}
                  >
                    {version.version}
                  </a>
                </th>
                <td>
                  <ExportCheckTag version={version} />
                </td>
                <td>
                  <span class="row tags">
                    {known
                      .filter((each) => each.alias.version === version.version)
                      .map((each) => (
                        <span class="tag active" key={each.alias.alias}>
                          {each.alias.alias}
                        </span>
                      ))}
                  </span>
                </td>
                <td class="nowrap">
                  {metricsOf(version)
                    .slice(0, 2)
                    .map(([title, value]) => `${title} ${number(value)}`)
                    .join(" · ")}
                </td>
                <td class="nowrap quiet">{time(version.created_at)}</td>
                <td class="right">
                  {current?.alias.version !== version.version && (
                    <button
                      type="button"
                      class="small nowrap"
                      disabled={!aliases.data || version.proof !== "passed"}
                      title={version.proof === "passed" ? undefined : "An alias can only point to a version whose export is verified"}
                      onClick={() => void move(version.version)}
                    >
                      Set as {alias}
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {current && <History name={name} alias={current} />}
      {known.length === 0 && aliases.data && (
        <p class="quiet small">
          An alias is a stable name for a version, such as <code>{name}@champion</code>. Programs that use the alias get
          the new version when you move it, without a code change.
        </p>
      )}
    </section>
  );
}

export function ExportCheckTag({ version }: { version: ModelVersion }) {
  const looks = { passed: "good", failed: "bad", pending: "active" } as const;
  const state = version.proof ?? "pending";
  const words = { passed: "Export verified", failed: "Export check failed", pending: "Verifying export" } as const;
  return <span class={`tag ${looks[state]}`}>{words[state]}</span>;
}

interface AliasChoiceProps {
  known: KnownAlias[];
  value: string;
  onValue: (alias: string) => void;
}

const NEW = "New alias…"; // not a valid alias name

function AliasChoice({ known, value, onValue }: AliasChoiceProps) {
  const [round, setRound] = useState(0);

  async function changed(next: string): Promise<void> {
    const name = next === NEW ? await asked("Name of the new alias", "challenger", "Choose") : next;
    if (name) onValue(name);
    else setRound(round + 1); // resets the select to the alias chosen before
  }

  const names = [...new Set([...known.map((each) => each.alias.alias), value])];
  return (
    <label class="check nowrap">
      Alias to move
      <select
        key={`${names.join()} ${round}`}
        value={value}
        onChange={(event) => void changed(event.currentTarget.value)}
      >
        {names.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
        <option value={NEW}>{NEW}</option>
      </select>
    </label>
  );
}
