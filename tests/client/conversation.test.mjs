// How much of the conversation the next question sends to the server.

import assert from "node:assert/strict";
import test from "node:test";

import { Conversation } from "../../client/static/conversation.js";

const contents = ({ body }) =>
  JSON.parse(body).messages.map(({ role, content }) => `${role[0]}:${content}`);

test("the first question goes alone, as plain text", () => {
  assert.deepEqual(new Conversation().request("Q1"), {
    type: "text/plain; charset=utf-8",
    body: "Q1",
  });
});

test("later ones send what was said before, as JSON", () => {
  const conversation = new Conversation();
  conversation.add("Q1", " A1 ");
  conversation.add("Q2", "A2");
  const request = conversation.request("Q3");
  assert.equal(request.type, "application/json");
  assert.deepEqual(contents(request), ["u:Q1", "a:A1", "u:Q2", "a:A2", "u:Q3"]);
});

test("what was never answered is not remembered", () => {
  const conversation = new Conversation();
  conversation.add("Q1", " \n");
  assert.equal(conversation.request("Q2").body, "Q2");
});

test("turning memory off forgets everything and keeps nothing", () => {
  const conversation = new Conversation();
  conversation.add("Q1", "A1");
  conversation.isKept = false;
  conversation.add("Q2", "A2");
  assert.equal(conversation.request("Q3").body, "Q3");
  conversation.isKept = true;
  conversation.add("Q4", "A4");
  assert.deepEqual(contents(conversation.request("Q5")), ["u:Q4", "a:A4", "u:Q5"]);
});

test("short lines full of quotes count as the JSON they become", () => {
  const conversation = new Conversation();
  let most = 0;
  for (let n = 0; n < 1000; n += 1) {
    conversation.add("?", '"\n"');
    most = Math.max(most, new TextEncoder().encode(conversation.request("Q").body).length);
  }
  assert.ok(most > 20_000);
  assert.ok(most < 40_100);
});

test("a conversation that has become too long loses its older half, and not a turn with every question", () => {
  const conversation = new Conversation();
  const sizes = [];
  const firsts = new Set();
  for (let n = 0; n < 100; n += 1) {
    conversation.add(`Q${n}`, "\u4e00".repeat(300));
    const request = conversation.request("Q");
    const sent = contents(request);
    sizes.push(new TextEncoder().encode(request.body).length);
    firsts.add(sent[0]);
    assert.equal(sent.at(-3), `u:Q${n}`);
  }
  assert.ok(Math.max(...sizes) < 40_100);
  assert.ok(Math.min(...sizes.slice(50)) > 16 * 1024);
  assert.ok(firsts.size < 6);
});

test("the last turn can be taken back", () => {
  const conversation = new Conversation();
  assert.equal(conversation.add("Q1", "A1"), true);
  conversation.add("Q2", "A2");
  conversation.cut();
  assert.deepEqual(contents(conversation.request("Q3")), ["u:Q1", "a:A1", "u:Q3"]);
});

test("what was saved is restored", () => {
  const before = new Conversation();
  assert.equal(before.save(), null);
  before.add("Q1", "A1");
  const after = new Conversation();
  after.restore(before.save());
  assert.deepEqual(after.turns, [{ question: "Q1", answer: "A1" }]);
  for (const damaged of ["{", '[{"question": 1}]', "5", null]) {
    const other = new Conversation();
    other.restore(damaged);
    assert.deepEqual(other.turns, []);
  }
});

test("nothing is restored with memory off", () => {
  const conversation = new Conversation();
  conversation.isKept = false;
  conversation.restore('[{"question": "Q", "answer": "A"}]');
  assert.equal(conversation.save(), null);
});
