// Watches the server: reports when it is lost, and when it is back. `fetch` is handed in.

import { readStatus } from "./status.js";

const POLL_MS = 1500;

/** Quiet while all is well: it asks only when told to, and then until the server answers. */
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

  /** The browser itself reports that there is no network. */
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
