/** The versions with their proof, and the aliases that are moved from one to the other. */

import { useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { asked } from "../../components/ask";
import { Failure } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { number, time } from "../../format";
import { announce } from "../../news";
import type { Resource } from "../../resource";
import { hrefWith } from "../../router";
import { type KnownAlias, point, rollBack } from "./aliases";
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

  async function change(act: () => Promise<KnownAlias>, told: (alias: KnownAlias) => string): Promise<boolean> {
    try {
      setError(null);
      const next = await act();
      const others = known.filter((each) => each.alias.alias !== next.alias.alias);
      aliases.set([...others, next].sort((one, other) => one.alias.alias.localeCompare(other.alias.alias)));
      announce(told(next));
      onMoved();
      return true;
    } catch (refused) {
      setError(refused);
      aliases.reload(); // somebody may have moved it meanwhile
      return false;
    }
  }

  async function move(version: number): Promise<void> {
    const isDone = await change(
      () => point(name, alias, version, current),
      (next) => `${next.alias.alias} points to version ${version}.`,
    );
    setMoved(isDone ? { alias, version, isNew: current === null } : null);
  }

  async function undo(): Promise<void> {
    if (!current) return;
    await change(
      () => rollBack(name, current),
      (next) => `${next.alias.alias} is back at version ${next.alias.version}.`,
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
            <strong>{moved.alias}</strong> points to version {moved.version} now.
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
              <th scope="col">Proof</th>
              <th scope="col">Aliases</th>
              <th scope="col">Figures</th>
              <th scope="col">Made</th>
              <th scope="col">
                <span class="unseen">What to do</span>
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
                    .map(([figure, value]) => `${figure} ${number(value)}`)
                    .join(" · ")}
                </td>
                <td class="nowrap quiet">{time(version.created_at)}</td>
                <td class="right">
                  {current?.alias.version !== version.version && (
                    <button
                      type="button"
                      class="small nowrap"
                      disabled={!aliases.data || version.proof !== "passed"}
                      title={version.proof === "passed" ? undefined : "Only a version whose proof has passed can be pointed to"}
                      onClick={() => void move(version.version)}
                    >
                      Make it {alias}
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
          An alias is a name that programs ask, such as <code>{name}@champion</code>: moving it gives
          them another version, without a change of theirs.
        </p>
      )}
    </section>
  );
}

export function ExportCheckTag({ version }: { version: ModelVersion }) {
  const looks = { passed: "good", failed: "bad", pending: "active" } as const;
  const state = version.proof ?? "pending";
  const words = { passed: "proved", failed: "proof failed", pending: "being proved" } as const;
  return <span class={`tag ${looks[state]}`}>{words[state]}</span>;
}

interface AliasChoiceProps {
  known: KnownAlias[];
  value: string;
  onValue: (alias: string) => void;
}

const NEW = "another …"; // no alias is called so

function AliasChoice({ known, value, onValue }: AliasChoiceProps) {
  const [round, setRound] = useState(0);

  async function changed(next: string): Promise<void> {
    const name = next === NEW ? await asked("What shall the alias be called?", "challenger", "Choose") : next;
    if (name) onValue(name);
    else setRound(round + 1); // shows the alias again that was chosen before
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
        <option value={NEW}>another …</option>
      </select>
    </label>
  );
}
