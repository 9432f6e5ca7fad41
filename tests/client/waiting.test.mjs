// What a waiting user is shown.

import assert from "node:assert/strict";
import test from "node:test";

import { describeWaiting, Waiting } from "../../client/static/waiting.js";

const status = (waiting, busy, ended = 0, state = "ready") => ({
  state,
  waiting,
  busy,
  prompts: { done: ended },
});

const CASES = [
  ["idle before", status(0, true), status(0, false), "Socrates is thinking…"],
  ["one before", status(1, true), status(0, true), "One question is before yours…"],
  ["three before", status(3, true), status(2, true), "3 questions are before yours…"],
  [
    "one of three has ended",
    status(3, true, 8),
    status(2, true, 7),
    "2 questions are before yours…",
  ],
  ["others came later", status(9, true, 5), status(1, true, 5), "2 questions are before yours…"],
  ["more ended than were ahead", status(5, true, 9), status(1, true, 2), "Socrates is thinking…"],
  ["loading", status(1, false, 0, "loading"), status(0, false), "The model is still loading…"],
  [
    "loading, half",
    { ...status(1, false, 0, "loading"), loading: { share: 0.504 } },
    null,
    "The model is still loading (50 %)…",
  ],
  ["no earlier status known", status(1, true), null, "Socrates is thinking…"],
];

for (const [name, now, before, words] of CASES) {
  test(`shown: ${name}`, () => assert.equal(describeWaiting(now, before), words));
}

test("it asks once before the question, then polls until the first word", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const said = [];
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    return { json: async () => status(1, true) };
  };
  const wait = new Waiting(fetch, (words) => said.push(words));
  await wait.begin();
  assert.equal(asked, 1);
  context.mock.timers.tick(700);
  await new Promise(setImmediate);
  assert.deepEqual(said, ["…", "2 questions are before yours…"]);
  wait.end();
  wait.end();
  context.mock.timers.tick(5000);
  await new Promise(setImmediate);
  assert.equal(asked, 2);
  assert.equal(said.at(-1), "");
});

test("a server that does not answer is no error", async () => {
  const wait = new Waiting(
    () => Promise.reject(new TypeError("gone")),
    () => {},
  );
  await wait.begin();
  wait.end();
});
