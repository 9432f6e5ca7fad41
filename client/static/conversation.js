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

  /** @returns {readonly Turn[]} the oldest first */
  get turns() {
    return this.#turns;
  }

  /**
   * @param {string} question
   * @param {string} answer
   * @returns {boolean} whether the turn is kept
   */
  add(question, answer) {
    if (!this.#isKept || !answer.trim()) return false;
    this.#turns.push({ question, answer: answer.trim() });
    this.#forget();
    return true;
  }

  /** Forget the last turn, to ask again. */
  cut() {
    this.#turns.pop();
  }

  /** Forget everything. */
  clear() {
    this.#turns = [];
  }

  /** @returns {string | null} for `restore`; null if there is nothing to keep */
  save() {
    return this.#turns.length ? JSON.stringify(this.#turns) : null;
  }

  /**
   * Go on with what `save` returned, if it is whole and memory is on.
   *
   * @param {string | null} saved
   */
  restore(saved) {
    try {
      for (const { question, answer } of JSON.parse(saved ?? "[]")) {
        if (typeof question === "string" && typeof answer === "string") this.add(question, answer);
      }
    } catch {
      this.clear();
    }
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
