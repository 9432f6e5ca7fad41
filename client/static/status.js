// What the server says of itself. `fetch` is handed in.

/**
 * @param {typeof globalThis.fetch} fetch
 * @returns {Promise<object | null>} the answer of /status, or null if there is none
 */
export async function readStatus(fetch) {
  try {
    return await (await fetch("/status")).json();
  } catch {
    return null;
  }
}
