/** The checkpoints of a run; each can be registered as a model version. */

import { useState } from "preact/hooks";
import { call, type Checkpoint, listCheckpoints, registerCheckpoint, type Run } from "../../api";
import { asked } from "../../components/ask";
import { Failure } from "../../components/failure";
import { Scroll } from "../../components/scroll";
import { bytes, count, number } from "../../format";
import { announce } from "../../news";
import { useReloadOn, useResource } from "../../resource";
import { href } from "../../router";
import { idempotencyKey } from "../datasets/upload";

export function Checkpoints({ run, events }: { run: Run; events: number }) {
  const path = { run_id: run.id };
  const list = useResource(
    (signal) => call(listCheckpoints({ path, query: { limit: 50 }, signal })),
    [run.id],
  );
  useReloadOn(events, list.reload);
  const rows = list.data?.data ?? [];
  return (
    <section class="card" aria-labelledby="checkpoints">
      <h2 id="checkpoints">Checkpoints</h2>
      {list.error !== null && <Failure error={list.error} retry={list.reload} />}
      {list.data && rows.length === 0 && (
        <p class="quiet">No checkpoints yet. Training writes them at intervals and at the end.</p>
      )}
      {rows.length > 0 && (
        <Scroll label="Table of checkpoints">
          <table>
            <thead>
              <tr>
                <th scope="col">Epoch</th>
                <th scope="col" class="right">
                  Loss
                </th>
                <th scope="col" class="right">
                  Size
                </th>
                <th scope="col">
                  <span class="unseen">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((checkpoint) => (
                <CheckpointRow key={checkpoint.id} run={run} checkpoint={checkpoint} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}

function CheckpointRow({ run, checkpoint }: { run: Run; checkpoint: Checkpoint }) {
  const [made, setMade] = useState<{ name: string; version: number } | null>(null);
  const [error, setError] = useState<unknown>(null);

  async function register(): Promise<void> {
    const preset = run.model?.name ?? String(run.config["register_as"] ?? "model");
    const model = await asked("Register as a version of this model", preset, "Register");
    if (!model) return;
    try {
      const path = { run_id: run.id, checkpoint_id: checkpoint.id };
      const headers = { "Idempotency-Key": idempotencyKey() };
      const version = await call(registerCheckpoint({ path, body: { model }, headers }));
      setMade({ name: version.model, version: version.version });
      announce(`Registered ${version.model} version ${version.version}.`);
      setError(null);
    } catch (refused) {
      setError(refused);
    }
  }

  return (
    <>
      <tr>
        <td>
          {count(checkpoint.epoch)} {checkpoint.is_best && <span class="tag good">best</span>}
        </td>
        <td class="right">{number(lossOf(checkpoint))}</td>
        <td class="right">{bytes(checkpoint.bytes)}</td>
        <td class="right nowrap">
          {made ? (
            <a href={href("models", made.name)}>
              {made.name} {made.version}
            </a>
          ) : (
            <button type="button" class="small" onClick={() => void register()}>
              Register
            </button>
          )}
        </td>
      </tr>
      {error !== null && (
        <tr>
          <td colSpan={4}>
            <Failure error={error} />
          </td>
        </tr>
      )}
    </>
  );
}

function lossOf(checkpoint: Checkpoint): unknown {
  const metrics = checkpoint.metrics as Record<string, Record<string, unknown> | undefined>;
  return (metrics["validation"] ?? metrics["train"])?.["loss"];
}
