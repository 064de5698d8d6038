/** A field for texts that mean missing, separated by commas. */

import { useState } from "preact/hooks";
import { Labelled } from "../../components/labelled";
import { listed, unlisted } from "./reading";

interface Props {
  text: string;
  pointer: string;
  hint: string;
  value: readonly string[];
  onValue: (texts: string[]) => void;
}

export function MarkersField({ text, pointer, hint, value, onValue }: Props) {
  // Keeps the typed text, so that a comma can be typed.
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <Labelled text={text} pointer={pointer} hint={hint}>
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          autocomplete="off"
          spellcheck={false}
          value={typed ?? listed(value)}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            onValue(unlisted(event.currentTarget.value));
          }}
          onBlur={() => setTyped(null)}
        />
      )}
    </Labelled>
  );
}
