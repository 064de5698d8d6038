/** The model card from the bundle. */

import { useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { Failure } from "../../components/failure";
import { Markdown } from "../../components/markdown";
import { useResource } from "../../resource";
import { save } from "../../save";
import { artifactPath, fetched, member } from "./files";

export function ModelCard({ version }: { version: ModelVersion }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <section class="card">
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <h3 class="inline">Model card</h3>
        </summary>
        {isOpen && <ModelCardText version={version} />}
      </details>
    </section>
  );
}

function ModelCardText({ version }: { version: ModelVersion }) {
  const card = useResource(
    async (signal) => {
      const bundle = await fetched(artifactPath(version.model, version.version, "bundle"), { signal });
      return (await member(bundle, "model_card.md")).text();
    },
    [version.sha256],
  );
  const text = card.data;
  return (
    <div class="stack">
      {card.error !== null && <Failure error={card.error} retry={card.reload} />}
      {card.isLoading && <p class="quiet">Loading…</p>}
      {text !== null && (
        <>
          <Markdown text={text} />
          <div class="actions">
            <button
              type="button"
              class="small"
              onClick={() => save(new Blob([text], { type: "text/markdown" }), `${version.model}-${version.version}.md`)}
            >
              Download model card
            </button>
          </div>
        </>
      )}
    </div>
  );
}
