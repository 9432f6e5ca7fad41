// The stream: whole characters; refusals, broken answers and aborts kept apart. No network.

import assert from "node:assert/strict";
import test from "node:test";

import { ask, BrokenAnswer, Refusal, readText } from "../../client/static/stream.js";

const encode = (text) => new TextEncoder().encode(text);

function streamOf(parts, failure) {
  return new ReadableStream({
    pull(controller) {
      if (parts.length) controller.enqueue(parts.shift());
      else if (failure) controller.error(failure);
      else controller.close();
    },
  });
}

async function collect(parts, failure) {
  const texts = [];
  await readText(streamOf(parts, failure), (text) => texts.push(text));
  return texts;
}

function askWith(fetch, signal = new AbortController().signal, key = null) {
  const texts = [];
  const request = { type: "text/plain; charset=utf-8", body: "What?" };
  const done = ask(request, { fetch, key, signal, onText: (text) => texts.push(text) });
  return { texts, done };
}

test("text arrives piece by piece", async () => {
  assert.deepEqual(await collect([encode("one "), encode("two")]), ["one ", "two"]);
});

test("a character split at every byte comes out whole", async () => {
  const bytes = encode("é🏛️");
  const texts = await collect([...bytes].map((byte) => Uint8Array.of(byte)));
  assert.equal(texts.join(""), "é🏛️");
  assert.ok(texts.every((text) => !text.includes("\ufffd")));
});

test("the prompt is sent as plain text", async () => {
  let sent;
  const { texts, done } = askWith(async (path, options) => {
    sent = { path, ...options };
    return new Response("yes");
  });
  await done;
  assert.deepEqual([sent.path, sent.method, sent.body], ["prompt", "POST", "What?"]);
  assert.match(sent.headers["Content-Type"], /^text\/plain/);
  assert.equal(sent.headers.Authorization, undefined);
  assert.deepEqual(texts, ["yes"]);
});

test("a key is sent if there is one", async () => {
  let sent;
  const signal = new AbortController().signal;
  const { done } = askWith(
    async (_path, options) => {
      sent = options;
      return new Response("yes");
    },
    signal,
    "secret",
  );
  await done;
  assert.equal(sent.headers.Authorization, "Bearer secret");
});

test("a refusal carries the server's sentence", async () => {
  const { done } = askWith(async () => new Response("The queue is full.\n", { status: 503 }));
  await assert.rejects(
    done,
    (error) =>
      error instanceof Refusal && error.message === "The queue is full." && error.status === 503,
  );
});

test("a refusal without words names its status", async () => {
  const { done } = askWith(async () => new Response("", { status: 502 }));
  await assert.rejects(done, { message: "The server answered 502." });
});

test("no connection is a broken answer", async () => {
  const { done } = askWith(async () => {
    throw new TypeError("Failed to fetch");
  });
  await assert.rejects(done, BrokenAnswer);
});

test("a stream that breaks half-way is a broken answer, and its text is kept", async () => {
  const { texts, done } = askWith(
    async () => new Response(streamOf([encode("half")], new TypeError("network error"))),
  );
  await assert.rejects(done, BrokenAnswer);
  assert.deepEqual(texts, ["half"]);
});

test("an abort is an AbortError, not a broken answer", async () => {
  const controller = new AbortController();
  const { done } = askWith(async () => {
    controller.abort();
    throw controller.signal.reason;
  }, controller.signal);
  await assert.rejects(done, { name: "AbortError" });
});
