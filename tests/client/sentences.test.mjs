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

test("a long sentence is cut where one would pause", () => {
  const clause = "and the sea was calm and wide and the olive trees stood still";
  const parts = split(`${Array(6).fill(clause).join(", ")}.`);
  assert.ok(parts.every((part) => part.length <= 160));
  assert.ok(parts.slice(0, -1).every((part) => part.endsWith(",")));
  assert.equal(parts.join(" "), `${Array(6).fill(clause).join(", ")}.`);
});

test("without a pause it is cut between words, and without words anywhere", () => {
  const words = split("word ".repeat(100));
  assert.ok(words.every((part) => part.length <= 160 && !part.startsWith("ord")));
  assert.equal(split("x".repeat(400)).join(""), "x".repeat(400));
});

test("without Intl.Segmenter sentences are split by their marks", () => {
  const { Segmenter } = Intl;
  delete Intl.Segmenter;
  try {
    const splitter = new SentenceSplitter();
    assert.deepEqual(splitter.push("What is it? You say "), ["What is it?"]);
    assert.deepEqual(splitter.push("so. Why"), ["You say so."]);
    assert.deepEqual(splitter.end(), ["Why"]);
  } finally {
    Intl.Segmenter = Segmenter;
  }
});
