/** The fields that say how the cells of one column are read; only those that its type has. */

import type { Column, ColumnOverride } from "../../api";
import { AUTO, Choice } from "../../components/choice";
import { marksOf } from "./draft";
import { MarkersField } from "./markers";
import { DATE_FORMS, furtherMissing, isOfNumbers, THOUSANDS, UNITS } from "./reading";

interface Props {
  column: Column;
  /** the type that the column would have */
  type: Column["type"];
  /** the changed fields */
  fields: ColumnOverride;
  /** the texts that mean missing in the whole table */
  missing: readonly string[];
  onFields: (fields: ColumnOverride) => void;
}

const DECIMALS = { ".": "point (1.5)", ",": "comma (1,5)" };
const BETWEEN = { "": "none", ...THOUSANDS };
const BESIDE = { "": "none", ...Object.fromEntries(UNITS.map((unit) => [unit, unit])) };
const DAY = "day first";
const MONTH = "month first";
const FORMS = { [DAY]: DAY, [MONTH]: MONTH, ...DATE_FORMS };

export function ColumnFields(props: Props) {
  const { column, type, fields, missing, onFields } = props;
  const present = furtherMissing(column.reading, missing);
  return (
    <div class="reading-fields">
      {isOfNumbers(type) && <NumberFields {...props} />}
      {type === "datetime" && <DateField {...props} />}
      <MarkersField
        text="Also missing"
        pointer={`${pointerTo(column.name)}/missing`}
        hint="texts of this column, separated by commas"
        value={fields.missing ?? present}
        onValue={(texts) => onFields({ missing: texts.join() === present.join() ? undefined : texts })}
      />
    </div>
  );
}

type Marks = Pick<ColumnOverride, "decimal" | "thousands" | "unit">;

function NumberFields({ column, type, fields, onFields }: Props) {
  // Marks that are known belong to the present type.
  const present: Marks = fields.type === undefined ? marksOf(column) : {};
  const field = <Name extends keyof Marks>(name: Name, text: string, options: Record<string, string>) => (
    <Choice
      text={text}
      pointer={`${pointerTo(column.name)}/${name}`}
      options={options}
      value={(fields[name] === undefined ? present[name] : fields[name]) ?? AUTO}
      onValue={(value) => {
        const isPresent = value === (present[name] ?? AUTO);
        onFields({ [name]: isPresent ? undefined : value === AUTO ? null : value });
      }}
    />
  );
  return (
    <>
      {type === "number" && field("decimal", "Decimal mark", DECIMALS)}
      {field("thousands", "Thousands mark", BETWEEN)}
      {field("unit", "Unit", BESIDE)}
    </>
  );
}

function DateField({ column, fields, onFields }: Props) {
  const isKnown = fields.type === undefined && column.reading;
  const present = isKnown ? (column.reading?.form ?? "%Y-%m-%d") : AUTO;
  return (
    <Choice
      text="Form of dates"
      pointer={`${pointerTo(column.name)}/form`}
      options={FORMS}
      value={formIn(fields) ?? present}
      onValue={(value) => onFields(value === present ? NO_FORM : formFields(value))}
    />
  );
}

const NO_FORM: ColumnOverride = { form: undefined, day_first: undefined };

function formFields(value: string): ColumnOverride {
  if (value === DAY || value === MONTH) return { form: null, day_first: value === DAY };
  return { form: value === AUTO ? null : value, day_first: null };
}

function formIn({ form, day_first: isDayFirst }: ColumnOverride): string | undefined {
  if (typeof isDayFirst === "boolean") return isDayFirst ? DAY : MONTH;
  return form === null ? AUTO : form;
}

function pointerTo(name: string): string {
  return `/columns/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}
