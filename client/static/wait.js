// What to tell a person who waits for the first word. `fetch` is handed in.

import { readStatus } from "./status.js";

const POLL_MS = 700;

/**
 * @param {object} status what /status says now
 * @param {object | null} before what it said just before the question was sent
 * @returns {string} why there is no answer yet
 */
export function describeWait(status, before) {
  if (status.state === "loading") return describeLoading(status.loading);
  const ahead = before ? countAhead(before) - (countEnded(status) - countEnded(before)) : 0;
  if (ahead > 1) return `${ahead} questions are before yours…`;
  if (ahead === 1) return "One question is before yours…";
  return "Socrates is thinking…";
}

function describeLoading(loading) {
  const percent = Math.round(100 * (loading?.share ?? 0));
  return percent ? `The model is still loading (${percent} %)…` : "The model is still loading…";
}

function countAhead({ waiting, busy }) {
  return waiting + (busy ? 1 : 0);
}

function countEnded({ prompts }) {
  return Object.values(prompts).reduce((sum, count) => sum + count, 0);
}

/** Tells from /status, now and then, until the first word comes. */
export class Wait {
  #fetch;
  #tell;
  #before = null;
  #timer = 0;
  #isOver = false;

  /**
   * @param {typeof globalThis.fetch} fetch
   * @param {(words: string) => void} tell
   */
  constructor(fetch, tell) {
    this.#fetch = fetch;
    this.#tell = tell;
  }

  /** To be awaited before the question is sent: who stands before it. */
  async begin() {
    this.#tell("…");
    this.#before = await readStatus(this.#fetch);
    this.#schedule();
  }

  /** The first word came, or none will. */
  end() {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#tell("");
  }

  #schedule() {
    if (!this.#isOver) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  async #poll() {
    const status = await readStatus(this.#fetch);
    if (this.#isOver) return;
    // If the server does not say, the question itself will show why.
    if (status) this.#tell(describeWait(status, this.#before));
    this.#schedule();
  }
}
