// What has been said, as far as the server is to be told with the next question. Pure.

// Less than the server takes (256 KiB), and far more than any context holds.
const MOST_LETTERS = 60_000;

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
    if (this.#isKept && answer.trim()) this.#exchanges.push({ question, answer: answer.trim() });
  }

  /**
   * @param {string} question
   * @returns {{type: string, body: string}} what to send: the bare question, or as JSON the
   *   latest exchanges, too
   */
  request(question) {
    const kept = this.#latest();
    if (!kept.length) return { type: "text/plain; charset=utf-8", body: question };
    const messages = kept.flatMap((exchange) => [
      { role: "user", content: exchange.question },
      { role: "assistant", content: exchange.answer },
    ]);
    messages.push({ role: "user", content: question });
    return { type: "application/json", body: JSON.stringify({ messages }) };
  }

  #latest() {
    let letters = 0;
    const tooMany = this.#exchanges.findLastIndex(({ question, answer }) => {
      letters += question.length + answer.length;
      return letters > MOST_LETTERS;
    });
    return this.#exchanges.slice(tooMany + 1);
  }
}
