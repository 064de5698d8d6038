/** Downloads of a version: the bundle, the ONNX graph, the prediction script. */

import { useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { Failure } from "../../components/failure";
import { announce } from "../../news";
import { save } from "../../save";
import { artifactPath, fetched, member } from "./files";

interface DownloadFormat {
  title: string;
  note: string;
  file: (stem: string) => string;
  load: (version: ModelVersion) => Promise<Blob>;
}

const bundleOf = (version: ModelVersion) => fetched(artifactPath(version.model, version.version, "bundle"));

const FORMATS: DownloadFormat[] = [
  {
    title: "Bundle",
    note: "One file with weights, preprocessing, model card and reference predictions. Another Descent service can import it.",
    file: (stem) => `${stem}.zip`,
    load: bundleOf,
  },
  {
    title: "ONNX",
    note: "A graph from column values to the prediction, for ONNX Runtime in any language.",
    file: (stem) => `${stem}.onnx`,
    load: (version) => fetched(artifactPath(version.model, version.version, "onnx")),
  },
  {
    title: "Script",
    note: "predict.py from the bundle. It needs only Python, torch, safetensors and the bundle itself.",
    file: () => "predict.py",
    load: async (version) => member(await bundleOf(version), "predict.py"),
  },
];

export function Downloads({ version }: { version: ModelVersion }) {
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState<string | null>(null);

  async function download(format: DownloadFormat): Promise<void> {
    setBusy(format.title);
    setError(null);
    try {
      save(await format.load(version), format.file(`${version.model}-${version.version}`));
      announce(`Downloaded ${format.title}.`);
    } catch (refused) {
      setError(refused);
    } finally {
      setBusy(null);
    }
  }

  return (
    <section class="card" aria-labelledby="downloads">
      <h3 id="downloads">Downloads</h3>
      <ul class="offers plain-list">
        {FORMATS.map((format) => (
          <li key={format.title}>
            <button type="button" disabled={busy !== null} onClick={() => void download(format)}>
              {busy === format.title ? "Preparing…" : format.title}
            </button>
            <span class="quiet small">{format.note}</span>
          </li>
        ))}
      </ul>
      {error !== null && <Failure error={error} />}
    </section>
  );
}
