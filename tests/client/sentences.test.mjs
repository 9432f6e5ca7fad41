// Sentences from text that comes in any pieces.

import assert from "node:assert/strict";
import test from "node:test";

import { SentenceSplitter } from "../../client/static/sentences.js";

function split(...pieces) {
  const splitter = new SentenceSplitter();
  return [...pieces.flatMap((piece) => splitter.push(piece)), ...splitter.end()];
}

const CASES = [
  ["One. Two? Three!", ["One.", "Two?", "Three!"]],
  ["Mr. Plato said 3.14 is near pi.", ["Mr. Plato said 3.14 is near pi."]],
  ["I know, e.g. Nothing. Yes.", ["I know, e.g. Nothing.", "Yes."]],
  ["No end", ["No end"]],
  ["First line\nsecond line", ["First line", "second line"]],
  ['He said: "Go." I went.', ['He said: "Go."', "I went."]],
  ["... !? —", []],
  ["", []],
];

for (const [text, expected] of CASES) {
  test(`whole: ${JSON.stringify(text)}`, () => assert.deepEqual(split(text), expected));
  test(`by letters: ${JSON.stringify(text)}`, () => assert.deepEqual(split(...text), expected));
}

test("a sentence is given as soon as the next one begins, not before", () => {
  const splitter = new SentenceSplitter();
  assert.deepEqual(splitter.push("What is"), []);
  assert.deepEqual(splitter.push(" virtue?"), []);
  assert.deepEqual(splitter.push(" I"), ["What is virtue?"]);
  assert.deepEqual(splitter.end(), ["I"]);
  assert.deepEqual(splitter.end(), []);
});
