// The text field: its height, and how much fits.

const MOST_BYTES = 16 * 1024; // the server's default limit for a body

/**
 * @param {string} prompt
 * @returns {string} why the server would not take it, or ""
 */
export function describeExcess(prompt) {
  const bytes = new TextEncoder().encode(prompt).length;
  if (bytes <= MOST_BYTES) return "";
  return `That is too long: ${bytes.toLocaleString("en")} bytes, and ${MOST_BYTES.toLocaleString("en")} fit.`;
}

/**
 * @param {HTMLTextAreaElement} input
 * @returns {string} its text, as JSON can carry it: half a surrogate pair, which some keyboards
 *   leave, becomes U+FFFD
 */
export function read(input) {
  return new TextDecoder().decode(new TextEncoder().encode(input.value)).trim();
}

/**
 * Make the field as high as its text; the style sheet sets the limit.
 *
 * @param {HTMLTextAreaElement} input
 */
export function grow(input) {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + input.offsetHeight - input.clientHeight}px`;
}
