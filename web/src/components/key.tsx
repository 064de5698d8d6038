/** The button and the dialog for the API key. */

import { useEffect, useRef, useState } from "preact/hooks";
import { call, getSystem } from "../api";
import { isKeyWanted, key, onSession, setKey, wantKey } from "../session";
import { Failure } from "./failure";

export function KeyButton() {
  useSession();
  const text = key() ? "API key set" : "API key";
  return (
    <button type="button" class="plain key" onClick={() => wantKey()}>
      {text}
    </button>
  );
}

export function KeyDialog() {
  useSession();
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState<unknown>(null);
  const isWanted = isKeyWanted();
  useEffect(() => {
    if (isWanted && !dialog.current?.open) dialog.current?.showModal();
    if (!isWanted) dialog.current?.close();
  }, [isWanted]);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const field = (event.currentTarget as HTMLFormElement).elements.namedItem("key");
    const secret = field instanceof HTMLInputElement ? field.value.trim() : "";
    const headers = { Authorization: `Bearer ${secret}` };
    try {
      await call(getSystem({ headers }));
      setError(null);
      setKey(secret);
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <dialog ref={dialog} aria-labelledby="key-title" onClose={() => wantKey(false)}>
      <form onSubmit={submit}>
        <h2 id="key-title">API key</h2>
        <p class="quiet">
          This tab keeps the key until you close it. Create a key with <code>descent keys create</code>.
        </p>
        <label class="field">
          <span>Key</span>
          <input name="key" type="password" autocomplete="off" placeholder="dsc_…" required />
        </label>
        {error !== null && <Failure error={error} />}
        <div class="actions">
          <button class="primary">Use this key</button>
          {key() && (
            <button type="button" onClick={() => setKey(null)}>
              Remove the key
            </button>
          )}
          <button type="button" onClick={() => wantKey(false)}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}

function useSession(): void {
  const [, setRound] = useState(0);
  useEffect(() => onSession(() => setRound((round) => round + 1)), []);
}
