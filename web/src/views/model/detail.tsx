/** One model: its versions and aliases, and the selected version. */

import { useState } from "preact/hooks";
import { call, deleteModel, listModelVersions, type ModelVersion } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { announce } from "../../news";
import { useInterval, useResource } from "../../resource";
import { go, href } from "../../router";
import { loadAliases } from "./aliases";
import { Versions } from "./versions";
import { VersionDetail } from "./version";

const POLL = 2; // seconds between two requests while an export check runs

export function ModelDetail({ name, wanted }: { name: string; wanted: number | null }) {
  const versions = useList(
    (after, signal) => call(listModelVersions({ path: { name }, query: { limit: 20, after }, signal })),
    [name],
  );
  const aliases = useResource((signal) => loadAliases(name, signal), [name]);
  const isChecking = versions.items?.some((version) => version.proof === "pending");
  useInterval(versions.reload, isChecking ? POLL : null);
  const shown = versions.items?.find(({ version }) => version === wanted) ?? versions.items?.[0];
  const failure = versions.error ?? aliases.error;
  return (
    <>
      <ModelHead name={name} />
      {failure !== null && <Failure error={failure} retry={versions.error ? versions.reload : aliases.reload} />}
      {versions.items?.length === 0 && (
        <div class="empty">
          <p>This model has no versions left.</p>
        </div>
      )}
      {versions.items && versions.items.length > 0 && (
        <Versions
          name={name}
          versions={versions.items}
          shown={shown?.version ?? null}
          aliases={aliases}
          onMoved={versions.reload}
        />
      )}
      <More list={versions} />
      {shown && <VersionDetail key={shown.version} version={shown} onDeleted={() => gone(name, versions.items)} />}
    </>
  );

  function gone(model: string, items: ModelVersion[] | null): void {
    if ((items?.length ?? 0) > 1) versions.reload();
    else go(href("models"));
    announce(`Deleted a version of ${model}.`);
  }
}

function ModelHead({ name }: { name: string }) {
  const [error, setError] = useState<unknown>(null);

  async function remove(): Promise<void> {
    const text = "This deletes all of its versions. Prediction requests to this model will fail.";
    if (!(await confirmed(`Delete the model “${name}”?`, text, "Delete"))) return;
    try {
      await call(deleteModel({ path: { name } }));
      announce(`Deleted ${name}.`);
      go(href("models"));
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <div class="row apart">
        <div class="cut">
          <p class="quiet">
            <a href={href("models")}>Models</a>
          </p>
          <h1>{name}</h1>
        </div>
        <button type="button" onClick={() => void remove()}>
          Delete
        </button>
      </div>
      {error !== null && <Failure error={error} />}
    </>
  );
}
