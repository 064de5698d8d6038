/** Registered models: their versions and aliases, and a form to predict with them. */

import { call, listModels, type Model } from "../api";
import type { ViewProps } from "../app";
import { Failure } from "../components/failure";
import { More, useList } from "../components/more";
import { time } from "../format";
import { href } from "../router";
import "../styles/lessons.css";
import "../styles/models.css";
import { ModelDetail } from "./model/detail";

export function Models({ route }: ViewProps) {
  const name = route.path[1];
  const version = Number(route.query.get("version"));
  if (name === undefined) return <ModelList />;
  return <ModelDetail name={name} wanted={Number.isInteger(version) && version > 0 ? version : null} />;
}

function ModelList() {
  const list = useList((after, signal) => call(listModels({ query: { limit: 50, after }, signal })), []);
  return (
    <>
      <h1>Models</h1>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && (
        <div class="empty">
          <p>
            No models yet. A run with a model name in “Register as” registers a version of that model when it succeeds.
            You can also register a checkpoint of any run.
          </p>
          <a class="button primary" href={href("new")}>
            Start a run
          </a>
        </div>
      )}
      <ul class="tiles plain-list">
        {list.items?.map((model) => (
          <li key={model.name}>
            <ModelTile model={model} />
          </li>
        ))}
      </ul>
      <More list={list} />
    </>
  );
}

function ModelTile({ model }: { model: Model }) {
  const aliases = Object.entries(model.aliases ?? {});
  return (
    <a class="card tile link" href={href("models", model.name)}>
      <span class="row apart">
        <strong class="cut">{model.name}</strong>
        <span class="tag">{model.latest_version ? `version ${model.latest_version}` : "no version"}</span>
      </span>
      <span class="row tags">
        {aliases.map(([alias, version]) => (
          <span class="tag active" key={alias}>
            {alias} → {version}
          </span>
        ))}
        {aliases.length === 0 && <span class="quiet small">no aliases</span>}
      </span>
      <span class="quiet small">created {time(model.created_at)}</span>
    </a>
  );
}
