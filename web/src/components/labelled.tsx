/** Labelled fields, each with its hint or the service's error about it. */

import { type ComponentChildren, createContext } from "preact";
import { useContext, useId } from "preact/hooks";
import { Refusal } from "../api";

/** Errors of the service by JSON pointer. */
export const FieldErrors = createContext<ReadonlyMap<string, string>>(new Map());

/** Returns the errors of the fields by JSON pointer. */
export function fieldErrors(error: unknown): ReadonlyMap<string, string> {
  const items = error instanceof Refusal ? (error.problem.errors ?? []) : [];
  return new Map(items.map((item) => [item.pointer ?? "", withoutName(item.detail)]));
}

/** "epochs: it should be above 0" → "It should be above 0", because it is shown at the field. */
function withoutName(detail: string): string {
  const text = detail.replace(/^[\w.]+: /, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A labelled field with its hint or its error. */
export function Labelled({
  text,
  pointer,
  hint,
  children,
}: {
  text: string;
  pointer: string;
  hint?: string | undefined;
  children: (id: string, attributes: { "aria-invalid": boolean; "aria-describedby": string }) => ComponentChildren;
}) {
  const id = useId();
  const error = useFieldError(pointer);
  const attributes = { "aria-invalid": error !== undefined, "aria-describedby": `${id}-hint` };
  return (
    <div class="field">
      <label class="label" for={id}>
        {text}
      </label>
      {children(id, attributes)}
      <small id={`${id}-hint`} class={error ? "wrong" : ""}>
        {error ?? hint}
      </small>
    </div>
  );
}

function useFieldError(pointer: string): string | undefined {
  const errors = useContext(FieldErrors);
  const inside = [...errors].find(([place]) => place === pointer || place.startsWith(`${pointer}/`));
  return inside?.[1];
}
