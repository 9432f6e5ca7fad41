// What has been said, as far as the next question takes it to the server. Pure.

// As JSON. More than 4,096 tokens take; with a question, it still fits a proxy's buffer of 64 KiB.
const MOST_BYTES = 40_000;

const messagesOf = ({ question, answer }) => [
  { role: "user", content: question },
  { role: "assistant", content: answer },
];
const bytesOf = (exchange) => new TextEncoder().encode(JSON.stringify(messagesOf(exchange))).length;

/** Keeps the questions and answers of one page; `isKept` turns the memory on and off. */
export class Talk {
  #exchanges = [];
  #isKept = true;

  /** @param {boolean} isKept whether what is said now is remembered; if not, all is forgotten */
  set isKept(isKept) {
    this.#isKept = isKept;
    if (!isKept) this.#exchanges = [];
  }

  /** @param {string} question @param {string} answer */
  add(question, answer) {
    if (!this.#isKept || !answer.trim()) return;
    this.#exchanges.push({ question, answer: answer.trim() });
    this.#forget();
  }

  /**
   * @param {string} question
   * @returns {{type: string, body: string}} what to send: the bare question, or as JSON the
   *   exchanges, too
   */
  request(question) {
    if (!this.#exchanges.length) return { type: "text/plain; charset=utf-8", body: question };
    const messages = this.#exchanges.flatMap(messagesOf);
    messages.push({ role: "user", content: question });
    return { type: "application/json", body: JSON.stringify({ messages }) };
  }

  // Half of it at once: a talk that begins otherwise is read by the model from its beginning,
  // and that must not happen with every question.
  #forget() {
    let bytes = this.#exchanges.reduce((sum, exchange) => sum + bytesOf(exchange), 0);
    if (bytes <= MOST_BYTES) return;
    while (bytes > MOST_BYTES / 2) bytes -= bytesOf(this.#exchanges.shift());
  }
}
