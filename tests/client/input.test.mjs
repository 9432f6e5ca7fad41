// How much fits into a question: bytes count, not letters.

import assert from "node:assert/strict";
import test from "node:test";

import { describeExcess } from "../../client/static/input.js";

test("16 KiB fit, and one byte more does not", () => {
  assert.equal(describeExcess("a".repeat(16384)), "");
  assert.equal(
    describeExcess("a".repeat(16385)),
    "That is too long: 16,385 bytes, and 16,384 fit.",
  );
});

test("letters of several bytes count as such", () => {
  assert.equal(describeExcess("α".repeat(8192)), "");
  assert.match(describeExcess("α".repeat(8193)), /16,386 bytes/);
});
