/** A labelled list of choices, of which the first leaves the choice to the service. */

import { Labelled } from "./labelled";

/** The value that stands for "automatic". */
export const AUTO = "auto";

interface Props {
  text: string;
  pointer: string;
  value: string;
  /** value → label */
  options: Record<string, string>;
  onValue: (value: string) => void;
}

export function Choice({ text, pointer, value, options, onValue }: Props) {
  const all = { [AUTO]: "automatic", ...options };
  // The service may know more values than the page.
  const shown = value in all ? all : { ...all, [value]: value };
  return (
    <Labelled text={text} pointer={pointer}>
      {(id, attributes) => (
        <select id={id} {...attributes} value={value} onChange={(event) => onValue(event.currentTarget.value)}>
          {Object.entries(shown).map(([each, label]) => (
            <option key={each} value={each}>
              {label}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}
