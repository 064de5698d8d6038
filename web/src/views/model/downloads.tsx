/** What a version leaves with: the bundle, the graph for other programs, a script that predicts. */

import { useState } from "preact/hooks";
import type { ModelVersion } from "../../api";
import { Failure } from "../../components/failure";
import { announce } from "../../news";
import { save } from "../../save";
import { artifactPath, fetched, member } from "./files";

interface Offer {
  title: string;
  note: string;
  file: (stem: string) => string;
  load: (version: ModelVersion) => Promise<Blob>;
}

const bundleOf = (version: ModelVersion) => fetched(artifactPath(version.model, version.version, "bundle"));

const OFFERS: Offer[] = [
  {
    title: "Bundle",
    note: "Everything in one file: weights, preprocessing, card and proof. Another Descent imports it.",
    file: (stem) => `${stem}.zip`,
    load: bundleOf,
  },
  {
    title: "ONNX",
    note: "A graph from the columns' values to the prediction, for ONNX Runtime in any language.",
    file: (stem) => `${stem}.onnx`,
    load: (version) => fetched(artifactPath(version.model, version.version, "onnx")),
  },
  {
    title: "Script",
    note: "predict.py from the bundle: it predicts with Python, torch and safetensors only, beside the bundle.",
    file: () => "predict.py",
    load: async (version) => member(await bundleOf(version), "predict.py"),
  },
];

export function Downloads({ version }: { version: ModelVersion }) {
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState<string | null>(null);

  async function download(offer: Offer): Promise<void> {
    setBusy(offer.title);
    setError(null);
    try {
      save(await offer.load(version), offer.file(`${version.model}-${version.version}`));
      announce(`${offer.title} is downloaded.`);
    } catch (refused) {
      setError(refused);
    } finally {
      setBusy(null);
    }
  }

  return (
    <section class="card" aria-labelledby="downloads">
      <h3 id="downloads">Take it with you</h3>
      <ul class="offers plain-list">
        {OFFERS.map((offer) => (
          <li key={offer.title}>
            <button type="button" disabled={busy !== null} onClick={() => void download(offer)}>
              {busy === offer.title ? "Making it…" : offer.title}
            </button>
            <span class="quiet small">{offer.note}</span>
          </li>
        ))}
      </ul>
      {error !== null && <Failure error={error} />}
    </section>
  );
}
