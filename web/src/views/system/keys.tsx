/** The API keys: create, show once, revoke. */

import { useRef, useState } from "preact/hooks";
import { call, createKey, deleteKey, type Key, type KeyCreated, listKeys } from "../../api";
import { confirmed } from "../../components/ask";
import { Failure } from "../../components/failure";
import { More, useList } from "../../components/more";
import { Scroll } from "../../components/scroll";
import { time } from "../../format";
import { announce } from "../../news";
import { key, setKey } from "../../session";
import { idempotencyKey } from "../datasets/upload";

export function Keys() {
  const list = useList((after, signal) => call(listKeys({ query: { limit: 50, after }, signal })), []);
  const [made, setMade] = useState<KeyCreated | null>(null);
  return (
    <section class="card" aria-labelledby="keys">
      <div class="row apart">
        <h2 id="keys">API keys</h2>
      </div>
      <p class="quiet">
        A key grants full access to the service. While there are no keys, the service answers this machine only.
      </p>
      <KeyForm
        onMade={(made) => {
          // From the first key on, the service requires one: without it this page would lock itself out.
          if (!key() && made.secret) setKey(made.secret);
          setMade(made);
          list.reload();
        }}
      />
      {made && <KeySecret made={made} onSeen={() => setMade(null)} />}
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && <p class="quiet">No API keys yet.</p>}
      {list.items && list.items.length > 0 && (
        <Scroll label="Table of keys">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Prefix</th>
                <th scope="col">Created</th>
                <th scope="col">Expires</th>
                <th scope="col">
                  <span class="unseen">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {list.items.map((item) => (
                <KeyRow key={item.id} item={item} onGone={list.reload} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <More list={list} />
    </section>
  );
}

const EFFECTIVE = 1_200; // milliseconds until every process rejects a revoked key

function KeyRow({ item, onGone }: { item: Key; onGone: () => void }) {
  const [error, setError] = useState<unknown>(null);

  async function revoke(): Promise<void> {
    const isOwn = key()?.startsWith(item.prefix) ?? false;
    const own = isOwn ? " This tab uses this key and will need another one if the service requires a key." : "";
    const text = `The service rejects the key within a second.${own}`;
    if (!(await confirmed(`Revoke the key “${item.name}”?`, text, "Revoke"))) return;
    try {
      await call(deleteKey({ path: { key_id: item.id } }));
      // Without keys the service is open again; every process knows after the same time.
      if (isOwn) setTimeout(() => setKey(null), EFFECTIVE);
      announce(`Revoked the key ${item.name}.`);
      onGone();
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <tr>
        <th scope="row">{item.name}</th>
        <td>
          <code>{item.prefix}…</code>
        </td>
        <td class="nowrap">{time(item.created_at)}</td>
        <td class="nowrap">{item.expires_at ? time(item.expires_at) : <span class="quiet">never</span>}</td>
        <td class="right">
          <button type="button" class="small danger" onClick={() => void revoke()} aria-label={`Revoke ${item.name}`}>
            Revoke
          </button>
        </td>
      </tr>
      {error !== null && (
        <tr>
          <td colSpan={5}>
            <Failure error={error} />
          </td>
        </tr>
      )}
    </>
  );
}

function KeyForm({ onMade }: { onMade: (key: KeyCreated) => void }) {
  const [error, setError] = useState<unknown>(null);
  const form = useRef<HTMLFormElement>(null);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const end = String(fields.get("end") ?? "");
    const body = {
      name: String(fields.get("name") ?? "").trim(),
      // The end of that day in the browser's time zone.
      expires_at: end ? new Date(`${end}T23:59:59`).toISOString() : null,
    };
    try {
      onMade(await call(createKey({ body, headers: { "Idempotency-Key": idempotencyKey() } })));
      setError(null);
      form.current?.reset();
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <form ref={form} class="choice-row rate-form" onSubmit={(event) => void submit(event)}>
        <label class="field">
          <span>Name of the new key</span>
          <input name="name" required maxLength={256} autocomplete="off" placeholder="notebook" />
        </label>
        <label class="field">
          <span>Expires after (optional)</span>
          <input name="end" type="date" />
        </label>
        <button class="primary">Create key</button>
      </form>
      {error !== null && <Failure error={error} />}
    </>
  );
}

function KeySecret({ made, onSeen }: { made: KeyCreated; onSeen: () => void }) {
  const [isCopied, setCopied] = useState(false);

  async function copy(): Promise<void> {
    await navigator.clipboard.writeText(made.secret ?? "");
    announce("Copied.");
    setCopied(true);
  }

  return (
    <div class="notice warning stack" role="status">
      <p>
        Created the key <strong>{made.name}</strong>. Its secret is shown only once: store it in a safe place.
        {key() === made.secret && " This tab now uses it."}
      </p>
      <div class="secret">
        <code>{made.secret}</code>
        {"clipboard" in navigator && (
          <button type="button" class="small" onClick={() => void copy()}>
            {isCopied ? "Copied" : "Copy"}
          </button>
        )}
        <button type="button" class="small" onClick={onSeen}>
          Done
        </button>
      </div>
    </div>
  );
}
