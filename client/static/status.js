// What the server reports about itself. `fetch` is passed in.

/**
 * @typedef {object} Status
 * @property {string} version
 * @property {string} model
 * @property {string} state
 * @property {boolean} busy
 * @property {number} waiting
 * @property {{share: number} | null} loading
 * @property {Record<string, number>} prompts counts of ended prompts, by how they ended
 */

/**
 * @param {typeof globalThis.fetch} fetch
 * @returns {Promise<Status | null>} the answer of /status, or null if there is none
 */
export async function readStatus(fetch) {
  try {
    return await (await fetch("status")).json();
  } catch {
    return null;
  }
}
