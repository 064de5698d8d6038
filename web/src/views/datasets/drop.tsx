/** The drop zone for files, and the progress of an upload. */

import { useRef, useState } from "preact/hooks";
import { type Dataset, type FileOverride, problemOf } from "../../api";
import { Failure } from "../../components/failure";
import { FieldErrors, fieldErrors } from "../../components/labelled";
import { ProgressBar } from "../../components/progress";
import { bytes, percent } from "../../format";
import { announce } from "../../news";
import { go, href } from "../../router";
import { FileFields } from "./file-fields";
import { ACCEPTED, choicesOf, upload } from "./upload";

/** A file that the service has refused. */
interface Refused {
  file: File;
  error: unknown;
}

interface CurrentUpload {
  file: File;
  share: number;
  abort: AbortController;
}

/** Example data: the points of 13 students in a quiz and in the final exam. */
const EXAMPLE = [
  "Quiz,Final",
  "25.2,30.5", "8.4,13.6", "4.9,14", "11.1,16.6", "9,15.8", "7.8,6.3", "3,2.4",
  "16,27.7", "2.5,0", "13.8,16.8", "9.6,14.9", "11.8,7.6", "16.9,25.9",
].join("\n");

export function DropZone({ hasNone }: { hasNone: boolean }) {
  const [current, setCurrent] = useState<CurrentUpload | null>(null);
  const [refused, setRefused] = useState<Refused | null>(null);
  const [isOver, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);

  async function send(file: File | undefined, reading: FileOverride = {}): Promise<void> {
    if (!file) return;
    const abort = new AbortController();
    setRefused(null);
    setCurrent({ file, share: 0, abort });
    try {
      const onProgress = (share: number) => setCurrent({ file, share, abort });
      arrived(await upload(file, { reading, onProgress, signal: abort.signal }));
    } catch (error) {
      if (!abort.signal.aborted) setRefused({ file, error });
    } finally {
      setCurrent(null);
    }
  }

  return (
    <section class="stack" aria-label="Upload">
      <div
        class={isOver ? "drop over" : "drop"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          void send(event.dataTransfer?.files[0]);
        }}
      >
        {current ? (
          <UploadProgress current={current} />
        ) : (
          <>
            <h2>Drop a table here</h2>
            <p class="quiet">
              CSV, TSV, Excel, JSON, NDJSON, Parquet or Arrow; also zipped or gzipped. The file is sent to this service
              only.
            </p>
            <div class="actions">
              <button type="button" class="primary" onClick={() => input.current?.click()}>
                Choose a file
              </button>
              {hasNone && (
                <button type="button" onClick={() => void send(example())}>
                  Try 13 exam scores
                </button>
              )}
            </div>
          </>
        )}
        <input
          ref={input}
          class="unseen"
          type="file"
          tabIndex={-1}
          aria-label="A table to upload"
          accept={ACCEPTED}
          onChange={(event) => {
            const field = event.currentTarget;
            void send(field.files?.[0]);
            field.value = ""; // allows choosing the same file again
          }}
        />
      </div>
      {refused && (
        <FieldErrors.Provider value={fieldErrors(refused.error)}>
          <Failure error={refused.error} />
          <SecondTry refused={refused} onSend={(reading) => void send(refused.file, reading)} />
        </FieldErrors.Provider>
      )}
    </section>
  );
}

/** Offers the choices that may make the file readable. */
function SecondTry({ refused, onSend }: { refused: Refused; onSend: (reading: FileOverride) => void }) {
  const { file, error } = refused;
  const [reading, setReading] = useState<FileOverride>({});
  const names = choicesOf(file);
  if (names.length === 0 || problemOf(error).status !== 422) return null;
  return (
    <form
      class="card"
      aria-label={`Another way to read ${file.name}`}
      onSubmit={(event) => {
        event.preventDefault();
        onSend(reading);
      }}
    >
      <p>If the file is right, say how to read it.</p>
      <FileFields
        names={names}
        place="/query"
        reading={null}
        fields={reading}
        onFields={(fields) => setReading((before) => ({ ...before, ...fields }))}
      />
      <div class="actions">
        <button>Send {file.name} again</button>
      </div>
    </form>
  );
}

function UploadProgress({ current }: { current: CurrentUpload }) {
  const isSent = current.share >= 1;
  return (
    <div class="stack sending">
      <h2>{current.file.name}</h2>
      <ProgressBar label={`Upload of ${current.file.name}`} share={isSent ? null : current.share}>
        <span>{isSent ? "Parsing the file" : `${percent(current.share)} of ${bytes(current.file.size)}`}</span>
        <button type="button" class="small" onClick={() => current.abort.abort()}>
          Cancel
        </button>
      </ProgressBar>
    </div>
  );
}

function arrived(dataset: Dataset): void {
  announce(`Uploaded ${dataset.name}.`);
  go(href("datasets", dataset.id));
}

function example(): File {
  return new File([EXAMPLE], "scores.csv", { type: "text/csv" });
}
