// Watches the server: reports when it is lost, and when it is back. `fetch` is passed in.

import { readStatus } from "./status.js";

const POLL_MS = 1500;

/** Polls the server only on request, and then until it answers. */
export class Reconnector {
  #fetch;
  #onLost;
  #onBack;
  #isChecking = false;

  /**
   * @param {typeof globalThis.fetch} fetch
   * @param {object} calls
   * @param {() => void} calls.onLost
   * @param {(status: import("./status.js").Status) => void} calls.onBack also when it was never lost
   */
  constructor(fetch, { onLost, onBack }) {
    this.#fetch = fetch;
    this.#onLost = onLost;
    this.#onBack = onBack;
  }

  /** Report the server as lost, since the browser has no network, and poll until it answers. */
  lose() {
    this.#onLost();
    this.check();
  }

  /** Ask until the server answers. */
  async check() {
    if (this.#isChecking) return;
    this.#isChecking = true;
    for (;;) {
      const status = await readStatus(this.#fetch);
      if (status) {
        this.#isChecking = false;
        this.#onBack(status);
        return;
      }
      this.#onLost();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
