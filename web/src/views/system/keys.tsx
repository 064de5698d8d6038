/** The API keys: made, shown once, revoked. */

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
        <h2 id="keys">Keys</h2>
      </div>
      <p class="quiet">
        Whoever has a key may do everything here. Without any key the service answers this machine only.
      </p>
      <KeyForm
        onMade={(made) => {
          // The first key closes the service to whoever has none: this page would lock itself out.
          if (!key() && made.secret) setKey(made.secret);
          setMade(made);
          list.reload();
        }}
      />
      {made && <KeySecret made={made} onSeen={() => setMade(null)} />}
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.items?.length === 0 && <p class="quiet">There is no key yet.</p>}
      {list.items && list.items.length > 0 && (
        <Scroll label="Table of keys">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Begins with</th>
                <th scope="col">Made</th>
                <th scope="col">Ends</th>
                <th scope="col">
                  <span class="unseen">What to do</span>
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

const EFFECTIVE = 1_200; // milliseconds after which each process knows that a key is gone

function KeyRow({ item, onGone }: { item: Key; onGone: () => void }) {
  const [error, setError] = useState<unknown>(null);

  async function revoke(): Promise<void> {
    const isOwn = key()?.startsWith(item.prefix) ?? false;
    const own = isOwn ? " This tab uses it: afterwards it needs another one, if the service wants any." : "";
    const text = `Within a second nothing accepts it any more.${own}`;
    if (!(await confirmed(`Revoke the key “${item.name}”?`, text, "Revoke"))) return;
    try {
      await call(deleteKey({ path: { key_id: item.id } }));
      // Without any key left the service is open again, which takes as long to be known.
      if (isOwn) setTimeout(() => setKey(null), EFFECTIVE);
      announce(`The key ${item.name} is revoked.`);
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
      // The end of that day where the browser is.
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
          <span>Name of a new key</span>
          <input name="name" required maxLength={256} autocomplete="off" placeholder="notebook" />
        </label>
        <label class="field">
          <span>Ends after (optional)</span>
          <input name="end" type="date" />
        </label>
        <button class="primary">Make a key</button>
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
        <strong>{made.name}</strong> is made. This is the only time that its secret is shown: keep it somewhere safe.
        {key() === made.secret && " This tab uses it from now on."}
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
