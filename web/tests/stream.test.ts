import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Refusal } from "../src/api";
import { follow, parseEvent, type ServerEvent } from "../src/stream";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Answers each connection with the next answer; returns the events, the requested IDs and the states. */
async function followed(answers: Answer[], lastId: string | null = null) {
  const asked: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    asked.push(request.headers["last-event-id"] as string | undefined);
    const answer = answers.shift();
    if (answer) answer(request, response);
    else response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const events: ServerEvent[] = [];
  const states: string[] = [];
  try {
    await follow({
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
      onEvent: (event) => events.push(event),
      onState: (state) => states.push(state),
      signal: new AbortController().signal,
      lastId,
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
  return { events, asked, states };
}

/** Sends the parts one by one, then ends or cuts the connection. */
function sending(parts: string[], isCut = false): Answer {
  return (_request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const send = () => {
      const part = parts.shift();
      if (part !== undefined) response.write(part, () => setImmediate(send));
      else if (isCut) response.destroy();
      else response.end();
    };
    send();
  };
}

test("an event has an ID, a name and all lines of its data", () => {
  assert.deepEqual(parseEvent("id: 7\nevent: metrics\ndata: {\ndata: }"), {
    id: "7",
    event: "metrics",
    data: "{\n}",
  });
  assert.deepEqual(parseEvent("data:no space"), { id: null, event: "message", data: "no space" });
  assert.equal(parseEvent(": a comment that keeps the connection"), null);
});

test("events are parsed regardless of how the connection splits them", async () => {
  const text = "id: 1\r\ndata: ä\r\n\r\n: still here\n\nid: 2\nevent: end\ndata: {}\n\n";
  const { events } = await followed([sending([...text])]);
  assert.deepEqual(
    events.map(({ id, event, data }) => [id, event, data]),
    [
      ["1", "message", "ä"],
      ["2", "end", "{}"],
    ],
  );
});

test("a broken stream continues after the last event received", async () => {
  const { events, asked, states } = await followed(
    [
      sending(["id: 4\ndata: a\n\n", "id: 5\nda"], true),
      (_request, response) => response.writeHead(503).end(),
      sending(["id: 5\ndata: b\n\n", "id: 6\nevent: end\ndata: c\n\n"]),
    ],
    "3",
  );
  assert.deepEqual(asked, ["3", "4", "4"]);
  assert.equal(events.map(({ data }) => data).join(""), "abc");
  assert.deepEqual(states, ["open", "waiting", "waiting", "open"]);
});

test("an error that a retry cannot fix is thrown", async () => {
  const problem = { code: "run_not_found", detail: "There is no such run.", status: 404, title: "Gone", type: "" };
  const answer: Answer = (_request, response) => response.writeHead(404).end(JSON.stringify(problem));
  await assert.rejects(followed([answer]), (error) => error instanceof Refusal && error.code === problem.code);
});
