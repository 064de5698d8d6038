/** The fields that say how a file is read; only those that its format has. */

import type { FileOverride, FileReading } from "../../api";
import { AUTO, Choice } from "../../components/choice";
import { Labelled } from "../../components/labelled";
import { MarkersField } from "./markers";
import { DELIMITERS, ENCODINGS, type FieldName, missingOf } from "./reading";

interface Props {
  names: FieldName[];
  /** the JSON pointer to the fields in errors of the service */
  place: string;
  /** how the file is read now; null if that is not known */
  reading: FileReading | null;
  /** the changed fields */
  fields: FileOverride;
  onFields: (fields: FileOverride) => void;
}

const HEADERS = { present: "yes", absent: "no" };
const LABELS: Partial<Record<FieldName, string>> = {
  encoding: "Encoding",
  delimiter: "Delimiter",
  header: "A row of names",
};

export function FileFields(props: Props) {
  return (
    <div class="reading-fields">
      {props.names.map((name) => (
        <FileField key={name} name={name} {...props} />
      ))}
    </div>
  );
}

function FileField({ name, place, reading, fields, onFields }: Props & { name: FieldName }) {
  if (name === "missing_values") {
    const present = reading ? missingOf(reading) : [];
    return (
      <MarkersField
        text="Missing values"
        pointer={`${place}/missing_values`}
        hint={reading ? "separated by commas; empty cells always are" : "separated by commas; empty: the usual ones"}
        value={fields.missing_values ?? present}
        onValue={(texts) => onFields({ missing_values: texts.join() === present.join() ? undefined : texts })}
      />
    );
  }
  if (name === "skip_lines") return <SkipField {...{ place, reading, fields, onFields }} />;
  if (name === "sheet") return <SheetField {...{ place, reading, fields, onFields }} />;
  const present = presentChoice(name, reading);
  return (
    <Choice
      text={LABELS[name] ?? name}
      pointer={`${place}/${name}`}
      options={{ encoding: ENCODINGS, delimiter: DELIMITERS, header: HEADERS }[name]}
      value={(fields[name] === undefined ? present : fields[name]) ?? AUTO}
      onValue={(value) => onFields({ [name]: value === present ? undefined : value === AUTO ? null : value })}
    />
  );
}

function presentChoice(name: "encoding" | "delimiter" | "header", reading: FileReading | null): string {
  if (!reading) return AUTO;
  if (name === "encoding") return reading.encoding ?? AUTO;
  if (name === "delimiter") return reading.delimiter ?? AUTO;
  if (typeof reading.header !== "boolean") return AUTO;
  return reading.header ? "present" : "absent";
}

type OneFieldProps = Omit<Props, "names">;

function SkipField({ place, reading, fields, onFields }: OneFieldProps) {
  const present = reading ? (reading.skip_lines ?? 0) : null;
  const value = fields.skip_lines === undefined ? present : fields.skip_lines;
  return (
    <Labelled text="Lines to skip" pointer={`${place}/skip_lines`} hint="above the table; empty: automatic">
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          type="number"
          min="0"
          max="1000"
          value={value ?? ""}
          onInput={(event) => {
            const text = event.currentTarget.value;
            const next = text === "" ? null : Math.round(Number(text));
            onFields({ skip_lines: next === present ? undefined : next });
          }}
        />
      )}
    </Labelled>
  );
}

function SheetField({ place, reading, fields, onFields }: OneFieldProps) {
  const present = reading?.sheet ?? "";
  return (
    <Labelled text="Sheet" pointer={`${place}/sheet`} hint="its name; empty: the first one">
      {(id, attributes) => (
        <input
          id={id}
          {...attributes}
          autocomplete="off"
          value={(fields.sheet === undefined ? present : fields.sheet) ?? ""}
          onInput={(event) => {
            const text = event.currentTarget.value;
            onFields({ sheet: text === present ? undefined : text || null });
          }}
        />
      )}
    </Labelled>
  );
}
