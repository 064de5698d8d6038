/** The system: devices, workers, runs by state, limits and API keys. */

import { call, getSystem, type System as SystemBody } from "../api";
import type { ViewProps } from "../app";
import { Failure } from "../components/failure";
import { Scroll } from "../components/scroll";
import { bytes, count, number, time } from "../format";
import { useInterval, useResource } from "../resource";
import { hrefWith } from "../router";
import "../styles/lessons.css";
import "../styles/models.css";
import { Keys } from "./system/keys";

const POLL = 3; // seconds

export function System(_props: ViewProps) {
  const system = useResource((signal) => call(getSystem({ signal })), []);
  useInterval(system.reload, POLL);
  return (
    <>
      <h1>System</h1>
      {system.error !== null && <Failure error={system.error} retry={system.reload} />}
      {system.data && (
        <>
          <SystemFacts system={system.data} />
          <Workers system={system.data} />
          <div class="halves">
            <RunsByState system={system.data} />
            <Limits system={system.data} />
          </div>
        </>
      )}
      <Keys />
    </>
  );
}

function SystemFacts({ system }: { system: SystemBody }) {
  const capacity = system.workers.reduce((sum, worker) => sum + worker.capacity, 0);
  const busy = system.queue.states["running"] ?? 0;
  const facts = {
    Version: system.version,
    Database: system.database === "sqlite" ? "SQLite" : "PostgreSQL",
    Devices: system.devices.map(deviceName).join(", ") || "none",
    Workers: count(system.workers.length),
    "Busy slots": `${count(busy)} of ${count(capacity)}`,
    Queued: count(system.queue.queued),
  };
  return (
    <dl class="facts card">
      {Object.entries(facts).map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function deviceName(device: Record<string, unknown>): string {
  const name = String(device["name"] ?? device["type"] ?? "device");
  const memory = device["memory_bytes"];
  return typeof memory === "number" ? `${name} (${bytes(memory)})` : name;
}

function Workers({ system }: { system: SystemBody }) {
  return (
    <section class="card" aria-labelledby="workers">
      <h2 id="workers">Workers</h2>
      {system.workers.length === 0 && (
        <div class="notice warning">
          <p>
            No worker has sent a heartbeat in the last 30 s, so runs stay in the queue. Start one with{" "}
            <code>descent worker</code>; <code>descent serve</code> starts its own.
          </p>
        </div>
      )}
      {system.workers.length > 0 && (
        <Scroll label="Table of workers">
          <table>
            <thead>
              <tr>
                <th scope="col">Host</th>
                <th scope="col">State</th>
                <th scope="col">Devices</th>
                <th scope="col" class="right">
                  Slots
                </th>
                <th scope="col">Started</th>
                <th scope="col">Last heartbeat</th>
              </tr>
            </thead>
            <tbody>
              {system.workers.map((worker) => (
                <tr key={worker.id}>
                  <th scope="row">
                    {worker.host} <span class="quiet small">PID {worker.pid}</span>
                  </th>
                  <td>
                    <span class={`tag ${worker.state === "ready" ? "good" : "active"}`}>{worker.state}</span>
                  </td>
                  <td>{worker.devices.map(deviceName).join(", ")}</td>
                  <td class="right">{count(worker.capacity)}</td>
                  <td class="nowrap">{time(worker.started_at)}</td>
                  <td class="nowrap">{ago(worker.seen_at)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </section>
  );
}

/** By the clock of the browser, which may differ slightly from that of the service. */
function ago(at: string): string {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(at)) / 1000));
  return seconds < 2 ? "just now" : `${count(seconds)} s ago`;
}

const ORDER = ["queued", "starting", "running", "pausing", "paused", "interrupted", "cancelling", "succeeded", "failed", "cancelled"];

function RunsByState({ system }: { system: SystemBody }) {
  const { states } = system.queue;
  const known = ORDER.filter((state) => states[state]);
  return (
    <section class="card" aria-labelledby="queue">
      <h2 id="queue">Runs by state</h2>
      {known.length === 0 && <p class="quiet">No runs yet.</p>}
      <table>
        <tbody>
          {known.map((state) => (
            <tr key={state}>
              <th scope="row">
                <a href={hrefWith(["runs"], { state })}>{state}</a>
              </th>
              <td class="right">{count(states[state])}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

const LIMITS: Record<string, string> = {
  max_upload_bytes: "Upload size",
  max_json_bytes: "JSON request size",
  max_predict_bytes: "Prediction request size",
  max_predict_rows: "Rows per prediction request",
  max_columns: "Columns per dataset",
  max_gzip_ratio: "Gzip compression ratio",
  parse_memory_bytes: "Memory to parse a file",
  parse_timeout_s: "Seconds to parse a file",
};

function Limits({ system }: { system: SystemBody }) {
  return (
    <section class="card" aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      <table>
        <tbody>
          {Object.entries(system.limits).map(([name, value]) => (
            <tr key={name}>
              <th scope="row">
                {LIMITS[name] ?? name} <code class="quiet">{name}</code>
              </th>
              <td class="right nowrap">{name.endsWith("_bytes") ? bytes(value) : number(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
