/** An editor for a list of layers: add, change, remove. */

import type { Json, JsonObject, Schema } from "./schema";
import { label, resolve, words } from "./schema";

interface Props {
  name: string;
  schema: Schema;
  value: Json | undefined;
  pointer: string;
  onValue: (value: Json) => void;
}

/** A kind of layer: an object with one number, or a word. */
interface LayerKind {
  name: string;
  preset: Json;
}

export function LayerList({ name, schema, value, onValue }: Props) {
  const kinds = kindsOf(schema);
  const layers = Array.isArray(value) ? value : [];
  const change = (place: number, layer: Json) => onValue(layers.with(place, layer));
  return (
    <fieldset class="stack whole">
      <legend>{label(name, schema)}</legend>
      <ol class="layers">
        {layers.map((layer, place) => (
          <li key={place}>
            <select
              aria-label={`Type of layer ${place + 1}`}
              value={kindOf(layer)}
              onChange={(event) => {
                const kind = kinds.find((each) => each.name === event.currentTarget.value);
                if (kind) change(place, kind.preset);
              }}
            >
              {kinds.map((kind) => (
                <option key={kind.name} value={kind.name}>
                  {kind.name}
                </option>
              ))}
            </select>
            {isObject(layer) ? (
              <input
                aria-label={`Value of layer ${place + 1}`}
                inputMode="decimal"
                value={String(Object.values(layer)[0])}
                onChange={(event) => change(place, { [kindOf(layer)]: Number(event.currentTarget.value) })}
              />
            ) : (
              <span />
            )}
            <button
              type="button"
              class="small"
              aria-label={`Remove layer ${place + 1}`}
              onClick={() => onValue(layers.toSpliced(place, 1))}
            >
              Remove
            </button>
          </li>
        ))}
      </ol>
      <div class="actions">
        {kinds.map((kind) => (
          <button
            key={kind.name}
            type="button"
            class="small"
            onClick={() => onValue([...layers, kind.preset])}
          >
            + {kind.name}
          </button>
        ))}
      </div>
    </fieldset>
  );
}

function kindsOf(schema: Schema): LayerKind[] {
  return (schema.items?.oneOf ?? []).flatMap((each): LayerKind[] => {
    const choice = resolve(each, schema.$defs);
    const [field, part] = Object.entries(choice.properties ?? {})[0] ?? [];
    if (field !== undefined) return [{ name: field, preset: { [field]: part?.examples?.[0] ?? 1 } }];
    return words(choice).map((word) => ({ name: word, preset: word }));
  });
}

function kindOf(layer: Json): string {
  return isObject(layer) ? (Object.keys(layer)[0] ?? "") : String(layer);
}

function isObject(value: Json): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
