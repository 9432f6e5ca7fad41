// Watches the server: reports when it is lost, and when it is back. `fetch` is handed in.

import { readStatus } from "./status.js";

const POLL_MS = 1500;

/** Quiet while all is well: it looks only when asked to, and then until the server answers. */
export class Lookout {
  #fetch;
  #onLost;
  #onBack;
  #isLooking = false;

  /**
   * @param {typeof globalThis.fetch} fetch
   * @param {object} calls
   * @param {() => void} calls.onLost
   * @param {(status: object) => void} calls.onBack also when it was never lost
   */
  constructor(fetch, { onLost, onBack }) {
    this.#fetch = fetch;
    this.#onLost = onLost;
    this.#onBack = onBack;
  }

  /** The browser itself says that there is no network. */
  lose() {
    this.#onLost();
    this.look();
  }

  /** Look until the server answers. */
  async look() {
    if (this.#isLooking) return;
    this.#isLooking = true;
    for (;;) {
      const status = await readStatus(this.#fetch);
      if (status) {
        this.#isLooking = false;
        this.#onBack(status);
        return;
      }
      this.#onLost();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
