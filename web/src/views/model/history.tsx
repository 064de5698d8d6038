/** The moves of an alias, newest first. */

import { useState } from "preact/hooks";
import { call, listModelAliasMoves } from "../../api";
import { Failure } from "../../components/failure";
import { time } from "../../format";
import { useResource } from "../../resource";
import type { KnownAlias } from "./aliases";

const SHOWN = 20; // moves

export function History({ name, alias }: { name: string; alias: KnownAlias }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>History of {alias.alias.alias}</summary>
      {isOpen && <Moves name={name} alias={alias.alias.alias} state={alias.etag} />}
    </details>
  );
}

function Moves({ name, alias, state }: { name: string; alias: string; state: string }) {
  const moves = useResource(
    (signal) => call(listModelAliasMoves({ path: { name, alias }, query: { limit: SHOWN }, signal })),
    [name, alias, state],
  );
  return (
    <>
      {moves.error !== null && <Failure error={moves.error} retry={moves.reload} />}
      <ol class="moves plain-list" reversed>
        {moves.data?.data.map((move) => (
          <li key={move.revision}>
            <span class="quiet">{time(move.moved_at)}</span> {move.how === "rollback" ? "rolled back to" : "moved to"}{" "}
            version {move.version}
            {move.canary && `; version ${move.canary.version} receives ${move.canary.percent} % of requests (canary)`}
            {move.shadow && `; version ${move.shadow.version} gets copies and its answers are discarded (shadow)`}
            {move.key_id && <code class="quiet"> {move.key_id}</code>}
          </li>
        ))}
      </ol>
    </>
  );
}
