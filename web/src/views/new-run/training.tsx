/** The training settings: the common ones first, all others under "Advanced settings". */

import { type Draft, field, valueOf, withValue } from "./draft";
import { Field, ObjectFields, VariantField } from "./fields";
import { type JsonObject, label, resolve, type Schema } from "./schema";

interface Props {
  draft: Draft;
  onDraft: (draft: Draft) => void;
}

const HINTS: Record<string, string> = {
  epochs: "passes over the training rows",
  register_as: "model name; leave empty to register no model",
  seed: "the same seed reproduces the run",
  device: "auto, cpu, cuda or cuda:0",
  loss: "auto: MSE for regression, cross-entropy for classification",
};

export function TrainingFields({ draft, onDraft }: Props) {
  const set = (name: string) => (value: unknown) =>
    onDraft(withValue(draft, name, value as JsonObject));
  const plain = (name: string) => (
    <Field
      key={name}
      name={name}
      schema={field(name)}
      value={valueOf(draft, name)}
      pointer={`/${name}`}
      onValue={set(name)}
      {...(HINTS[name] ? { hint: HINTS[name] } : {})}
    />
  );
  const choice = (name: string) => (
    <div class="columns" key={name}>
      <VariantField
        name={name}
        schema={{ ...field(name), title: label(name) }}
        value={valueOf(draft, name)}
        pointer={`/${name}`}
        onValue={set(name)}
      />
    </div>
  );
  return (
    <>
      <section class="card" aria-labelledby="training">
        <h2 id="training">Training</h2>
        <div class="columns">
          {plain("epochs")}
          {plain("batch_size")}
          {plain("register_as")}
        </div>
        {choice("optimizer")}
        <details>
          <summary>Advanced settings</summary>
          <div class="stack inside">
            {choice("split")}
            {choice("schedule")}
            <div class="columns">
              <OptionalField
                name="early_stopping"
                text="Early stopping"
                preset={{ patience: 20 }}
                draft={draft}
                onDraft={onDraft}
              />
              <OptionalField
                name="budget"
                text="Limit training time"
                preset={{ time_s: 600 }}
                draft={draft}
                onDraft={onDraft}
              />
            </div>
            <div class="columns">{["loss", "on_divergence", "seed", "device"].map(plain)}</div>
            {plain("standardize")}
            <div class="columns">{plain("name")}</div>
          </div>
        </details>
      </section>
    </>
  );
}

interface OptionalFieldProps extends Props {
  name: string;
  text: string;
  preset: JsonObject;
}

/** An optional object: a checkbox, then its fields. */
function OptionalField({ name, text, preset, draft, onDraft }: OptionalFieldProps) {
  const value = valueOf(draft, name);
  const schema = (field(name).anyOf ?? []).map((each) => resolve(each)).find((each) => each.properties);
  const set = (next: JsonObject | null) => onDraft(withValue(draft, name, next));
  return (
    <div class="stack">
      <label class="check">
        <input
          type="checkbox"
          checked={value !== null}
          onChange={(event) => set(event.currentTarget.checked ? preset : null)}
        />
        {text}
      </label>
      {value !== null && schema && (
        <ObjectFields
          schema={withoutDefaults(schema)}
          value={value as JsonObject}
          pointer={`/${name}`}
          onValue={set}
        />
      )}
    </div>
  );
}

/** Without defaults in the schema, the request always contains the values shown. */
function withoutDefaults(schema: Schema): Schema {
  const parts = Object.entries(schema.properties ?? {}).map(([name, { default: _, ...part }]) => [name, part]);
  return { ...schema, properties: Object.fromEntries(parts) };
}

