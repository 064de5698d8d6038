/** The model of a run: the service lists the architectures and the schema of each. */

import { type Architecture, call, listArchitectures } from "../../api";
import { Failure } from "../../components/failure";
import { useResource } from "../../resource";
import { type Draft, defaultOf, valueOf, withValue } from "./draft";
import { ObjectFields } from "./fields";
import type { JsonObject, Schema } from "./schema";

interface Props {
  draft: Draft;
  onDraft: (draft: Draft) => void;
}

export function ModelFields({ draft, onDraft }: Props) {
  const types = useResource((signal) => call(listArchitectures({ signal })), []);
  const model = valueOf(draft, "model") as JsonObject;
  const chosen = types.data?.data.find((each) => each.type === model["type"]);
  const schema = chosen?.schema as Schema | undefined;
  return (
    <section class="card" aria-labelledby="model">
      <h2 id="model">Model</h2>
      {types.error !== null && <Failure error={types.error} retry={types.reload} />}
      <div class="choices" role="radiogroup" aria-labelledby="model">
        {types.data?.data.map((each) => (
          <ArchitectureChoice
            key={each.type}
            architecture={each}
            isChosen={each === chosen}
            onChoose={() => onDraft(withValue(draft, "model", first(each)))}
          />
        ))}
      </div>
      {schema && (
        <div class="columns">
          <ObjectFields
            key={chosen?.type}
            schema={schema}
            value={model}
            pointer="/model"
            onValue={(value) => onDraft(withValue(draft, "model", value))}
          />
        </div>
      )}
    </section>
  );
}

/** Returns the initial model of a type: the service's default, or the first example of each required field. */
function first({ type, schema }: Architecture): JsonObject {
  const preset = defaultOf("model") as JsonObject;
  if (preset["type"] === type) return preset;
  const { properties = {}, required = [] } = schema as Schema;
  const examples = required.map((name) => [name, properties[name]?.examples?.[0] ?? null]);
  return { type, ...Object.fromEntries(examples) };
}

interface ArchitectureChoiceProps {
  architecture: Architecture;
  isChosen: boolean;
  onChoose: () => void;
}

function ArchitectureChoice({ architecture, isChosen, onChoose }: ArchitectureChoiceProps) {
  return (
    <label class={isChosen ? "choice chosen" : "choice"}>
      <input type="radio" name="model" checked={isChosen} onChange={onChoose} />
      <span>
        <strong>{architecture.title}</strong>
        <small class="quiet">{architecture.description.replaceAll("`", "")}</small>
      </span>
    </label>
  );
}
