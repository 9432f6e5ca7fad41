// One question to the server and its answer, piece by piece. Knows nothing of the page:
// `fetch` is passed in, so that tests can replace the network.

/** The server answered, but with a refusal; `message` is its sentence for a person. */
export class Refusal extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The answer broke off: the connection was lost before its end. */
export class BrokenAnswer extends Error {}

/**
 * Ask, and pass on the text as it arrives. Resolves when the answer is complete.
 *
 * @param {{type: string, body: string}} request what Conversation makes of a question
 * @param {object} options
 * @param {string | null} options.key the server's API key, if it has one
 * @param {typeof globalThis.fetch} options.fetch
 * @param {AbortSignal} options.signal aborting it closes the socket, which stops the model
 * @param {(text: string) => void} options.onText never cut inside a character
 * @throws {Refusal} for any status but 200
 * @throws {BrokenAnswer} if the connection is lost, before or within the answer
 * @throws {DOMException} AbortError, if `signal` was aborted
 */
export async function ask({ type, body }, { fetch, key, signal, onText }) {
  try {
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": type };
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await fetch("prompt", { method: "POST", headers, body, signal });
    if (!response.ok) {
      const sentence = (await response.text()).trim();
      throw new Refusal(sentence || `The server answered ${response.status}.`, response.status);
    }
    if (response.body) await readText(response.body, onText);
  } catch (error) {
    if (error instanceof Refusal || signal.aborted) throw error;
    throw new BrokenAnswer("The connection was lost.", { cause: error });
  }
}

/**
 * @param {ReadableStream<Uint8Array>} body
 * @param {(text: string) => void} onText
 */
export async function readText(body, onText) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    const text = decoder.decode(value, { stream: !done });
    if (text) onText(text);
    if (done) return;
  }
}
