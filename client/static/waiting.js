// What to show a user who waits for the first word. `fetch` is passed in.

import { readStatus } from "./status.js";

/** @typedef {import("./status.js").Status} Status */

const POLL_MS = 700;

/**
 * @param {Status} status what /status reports now
 * @param {Status | null} before what it reported just before the question was sent
 * @returns {string} why there is no answer yet
 */
export function describeWaiting(status, before) {
  if (status.state === "loading") return describeLoading(status.loading);
  const ahead = before ? countAhead(before) - (countEnded(status) - countEnded(before)) : 0;
  if (ahead > 1) return `${ahead} questions are before yours…`;
  if (ahead === 1) return "One question is before yours…";
  return "Socrates is thinking…";
}

/** @param {Status["loading"]} loading */
function describeLoading(loading) {
  const percent = Math.round(100 * (loading?.share ?? 0));
  return percent ? `The model is still loading (${percent} %)…` : "The model is still loading…";
}

/** @param {Status} status */
function countAhead({ waiting, busy }) {
  return waiting + (busy ? 1 : 0);
}

/** @param {Status} status */
function countEnded({ prompts }) {
  return Object.values(prompts).reduce((sum, count) => sum + count, 0);
}

/** Polls /status until the first word arrives. */
export class Waiting {
  #fetch;
  #show;
  /** @type {Status | null} */
  #before = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #isOver = false;

  /**
   * @param {(url: string) => Promise<Response>} fetch
   * @param {(words: string) => void} show
   */
  constructor(fetch, show) {
    this.#fetch = /** @type {typeof globalThis.fetch} */ (fetch);
    this.#show = show;
  }

  /** Find out how many are ahead. Await this before sending the question. */
  async begin() {
    this.#show("…");
    this.#before = await readStatus(this.#fetch);
    this.#schedule();
  }

  /** Stop polling: the first word came, or none will. */
  end() {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#show("");
  }

  #schedule() {
    if (!this.#isOver) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  async #poll() {
    const status = await readStatus(this.#fetch);
    if (this.#isOver) return;
    // If the server does not answer, the question itself will show why.
    if (status) this.#show(describeWaiting(status, this.#before));
    this.#schedule();
  }
}
