// The conversation on this page, as far as the next question sends it to the server. Pure.

// Of JSON: more than 4,096 tokens need; with a question it still fits a proxy's 64 KiB buffer.
const MOST_BYTES = 40_000;

/** @typedef {{question: string, answer: string}} Turn */

const messagesOf = (/** @type {Turn} */ { question, answer }) => [
  { role: "user", content: question },
  { role: "assistant", content: answer },
];
const bytesOf = (/** @type {Turn} */ turn) =>
  new TextEncoder().encode(JSON.stringify(messagesOf(turn))).length;

/** Keeps the turns of one page; `isKept` turns the memory on and off. */
export class Conversation {
  /** @type {Turn[]} */
  #turns = [];
  #isKept = true;

  /** @param {boolean} isKept if false, all turns are forgotten and no more are kept */
  set isKept(isKept) {
    this.#isKept = isKept;
    if (!isKept) this.#turns = [];
  }

  /** @param {string} question @param {string} answer */
  add(question, answer) {
    if (!this.#isKept || !answer.trim()) return;
    this.#turns.push({ question, answer: answer.trim() });
    this.#forget();
  }

  /**
   * @param {string} question
   * @returns {{type: string, body: string}} what to send: the bare question, or the turns and
   *   the question as JSON
   */
  request(question) {
    if (!this.#turns.length) return { type: "text/plain; charset=utf-8", body: question };
    const messages = this.#turns.flatMap(messagesOf);
    messages.push({ role: "user", content: question });
    return { type: "application/json", body: JSON.stringify({ messages }) };
  }

  // Drops half at once: a changed beginning makes the model re-read the whole conversation, which
  // must not happen with every question.
  #forget() {
    let bytes = this.#turns.reduce((sum, turn) => sum + bytesOf(turn), 0);
    if (bytes <= MOST_BYTES) return;
    let kept = 0;
    while (bytes > MOST_BYTES / 2) bytes -= bytesOf(this.#turns[kept++]);
    this.#turns.splice(0, kept);
  }
}
