/** Form fields made from the JSON Schema of their values. */

import { createContext } from "preact";
import { useContext, useState } from "preact/hooks";
import { Labelled } from "../../components/labelled";
import { LayerList } from "./layer-list";
import { defaultIn, type Json, type JsonObject, label, numeric, resolve, type Schema, variants, words } from "./schema";

/** The column names of the dataset, for fields that choose a column. */
export const ColumnNames = createContext<readonly string[]>([]);

interface FieldProps {
  name: string;
  schema: Schema;
  value: Json | undefined;
  pointer: string;
  onValue: (value: Json) => void;
  hint?: string;
}

/** The fields of an object except `type`, which is chosen elsewhere. */
export function ObjectFields({
  schema,
  value,
  pointer,
  onValue,
}: {
  schema: Schema;
  value: JsonObject;
  pointer: string;
  onValue: (value: JsonObject) => void;
}) {
  const names = Object.keys(schema.properties ?? {}).filter((name) => name !== "type");
  return (
    <>
      {names.map((name) => {
        const part = resolve(schema.properties?.[name] ?? {}, schema.$defs);
        return (
          <Field
            key={name}
            name={name}
            schema={{ ...part, $defs: schema.$defs ?? {} }}
            value={name in value ? value[name] : defaultIn(part)}
            pointer={`${pointer}/${name}`}
            onValue={(next) => onValue(changed(value, name, next, defaultIn(part)))}
          />
        );
      })}
    </>
  );
}

export function Field(props: FieldProps) {
  const { name, schema } = props;
  if (name === "column") return <ColumnField {...props} />;
  if (variants(schema).size > 0) return <VariantField {...props} />;
  if (schema.type === "boolean") return <CheckField {...props} />;
  if (schema.type === "array" && schema.items?.oneOf) return <LayerList {...props} />;
  if (schema.type === "array") return <NumbersField {...props} />;
  if (numeric(schema)) return <NumberField {...props} />;
  if (words(schema).length > 0) return <WordField {...props} />;
  return <TextField {...props} />;
}

/** A field that is one of several objects: a select for the type, then the fields of that type. */
export function VariantField({ name, schema, value, pointer, onValue }: FieldProps) {
  const choices = variants(schema);
  const object = (value ?? {}) as JsonObject;
  const type = String(object["type"]);
  const chosen = choices.get(type);
  const first = (next: string) => {
    const preset = (defaultIn(schema) ?? {}) as JsonObject;
    return preset["type"] === next ? preset : { type: next };
  };
  return (
    <>
      <Labelled
        text={label(name, schema)}
        pointer={`${pointer}/type`}
        hint={(chosen?.description ?? "").replaceAll("`", "")}
      >
        {(id, attributes) => (
          <select
            id={id}
            {...attributes}
            value={type}
            onChange={(event) => onValue(first(event.currentTarget.value))}
          >
            {[...choices.keys()].map((each) => (
              <option key={each} value={each}>
                {each.replaceAll("_", " ")}
              </option>
            ))}
          </select>
        )}
      </Labelled>
      {chosen && (
        <ObjectFields key={type} schema={chosen} value={object} pointer={pointer} onValue={onValue} />
      )}
    </>
  );
}

function NumberField({ name, schema, value, pointer, onValue, hint }: FieldProps) {
  const part = numeric(schema) ?? {};
  const word = words(schema)[0];
  // Keeps the typed text, so that "0." can become "0.5".
  const [typed, setTyped] = useState<string | null>(null);
  const shown = typed ?? (value === null || value === undefined ? "" : String(value));
  // The description of a field that may be empty says what happens then.
  const whenEmpty = shown === "" ? schema.description : undefined;
  return (
    <Labelled text={label(name, schema)} pointer={pointer} hint={hint ?? whenEmpty ?? range(part, word)}>
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          inputMode={part.type === "integer" ? "numeric" : "decimal"}
          autocomplete="off"
          value={shown}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            onValue(read(event.currentTarget.value, word));
          }}
          onBlur={() => setTyped(null)}
        />
      )}
    </Labelled>
  );
}

function read(text: string, word: string | undefined): Json {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  const value = Number(trimmed);
  if (trimmed === word || Number.isNaN(value)) return trimmed; // the service reports the error
  return value;
}

function range(schema: Schema, word: string | undefined): string {
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const most = schema.maximum ?? schema.exclusiveMaximum;
  const parts: string[] = [];
  if (least !== undefined) parts.push(schema.minimum === undefined ? `above ${least}` : `at least ${least}`);
  if (most !== undefined && most < 1e6) {
    parts.push(schema.maximum === undefined ? `below ${most}` : `at most ${most}`);
  }
  if (word) parts.push(`or ${word}`);
  return parts.join(", ");
}

function NumbersField({ name, schema, value, pointer, onValue }: FieldProps) {
  const [typed, setTyped] = useState<string | null>(null);
  const numbers = Array.isArray(value) ? value : [];
  return (
    <Labelled text={label(name, schema)} pointer={pointer} hint={[schema.description, "Numbers separated by commas."].filter(Boolean).join(" ")}>
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          inputMode="numeric"
          autocomplete="off"
          value={typed ?? numbers.join(", ")}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            const parts = event.currentTarget.value.split(/[\s,;]+/).filter(Boolean);
            onValue(parts.map((part) => read(part, undefined)));
          }}
          onBlur={() => setTyped(null)}
        />
      )}
    </Labelled>
  );
}

function WordField({ name, schema, value, pointer, onValue, hint }: FieldProps) {
  return (
    <Labelled text={label(name, schema)} pointer={pointer} hint={hint}>
      {(id, attributes) => (
        <select
          id={id}
          {...attributes}
          value={String(value)}
          onChange={(event) => onValue(event.currentTarget.value)}
        >
          {words(schema).map((word) => (
            <option key={word} value={word}>
              {word.replaceAll("_", " ")}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}

function CheckField({ name, schema, value, onValue }: FieldProps) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={value === true}
        onChange={(event) => onValue(event.currentTarget.checked)}
      />
      {label(name, schema)}
    </label>
  );
}

function ColumnField({ name, schema, value, pointer, onValue }: FieldProps) {
  const names = useContext(ColumnNames);
  const isOptional = schema.anyOf?.some((part) => part.type === "null") ?? false;
  return (
    <Labelled text={label(name, schema)} pointer={pointer}>
      {(id, attributes) => (
        <select
          id={id}
          {...attributes}
          value={typeof value === "string" ? value : ""}
          onChange={(event) => onValue(event.currentTarget.value || (isOptional ? null : ""))}
        >
          <option value="">{isOptional ? "None" : "Choose a column"}</option>
          {names.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}

function TextField({ name, schema, value, pointer, onValue, hint }: FieldProps) {
  return (
    <Labelled text={label(name, schema)} pointer={pointer} hint={hint}>
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          autocomplete="off"
          value={typeof value === "string" ? value : ""}
          onInput={(event) => onValue(event.currentTarget.value.trim() || null)}
        />
      )}
    </Labelled>
  );
}

function changed(object: JsonObject, name: string, value: Json, preset: Json | undefined): JsonObject {
  const { [name]: _before, ...rest } = object;
  return JSON.stringify(value) === JSON.stringify(preset) ? rest : { ...rest, [name]: value };
}
