// The server is lost and comes back.

import assert from "node:assert/strict";
import test from "node:test";

import { Reconnector } from "../../client/static/reconnect.js";

test("the server is reported lost until it answers, with one poll at a time", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const events = [];
  let isUp = false;
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    if (!isUp) throw new TypeError("refused");
    return { json: async () => ({ version: "1" }) };
  };
  const reconnector = new Reconnector(fetch, {
    onLost: () => events.push("lost"),
    onBack: ({ version }) => events.push(version),
  });
  reconnector.check();
  reconnector.check();
  await new Promise(setImmediate);
  assert.equal(asked, 1);
  isUp = true;
  context.mock.timers.tick(1500);
  await new Promise(setImmediate);
  assert.deepEqual(events, ["lost", "1"]);
  context.mock.timers.tick(10_000);
  await new Promise(setImmediate);
  assert.equal(asked, 2);
});

test("a loss that the browser notices is reported at once", async () => {
  const events = [];
  const fetch = async () => ({ json: async () => ({}) });
  const reconnector = new Reconnector(fetch, {
    onLost: () => events.push("lost"),
    onBack: () => events.push("back"),
  });
  reconnector.lose();
  assert.deepEqual(events, ["lost"]);
  await new Promise(setImmediate);
  assert.deepEqual(events, ["lost", "back"]);
});
