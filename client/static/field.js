// The field one writes in: its height, and how much fits.

const MOST_BYTES = 16 * 1024; // the server's default limit of a body

/**
 * @param {string} prompt
 * @returns {string} why the server would not take it, or ""
 */
export function tooLong(prompt) {
  const bytes = new TextEncoder().encode(prompt).length;
  if (bytes <= MOST_BYTES) return "";
  return `That is too long: ${bytes.toLocaleString("en")} bytes, and ${MOST_BYTES.toLocaleString("en")} fit.`;
}

/**
 * @param {HTMLTextAreaElement} field
 * @returns {string} what stands in it, as text that JSON can carry: half a surrogate pair, as
 *   some keyboards leave, becomes U+FFFD
 */
export function read(field) {
  return new TextDecoder().decode(new TextEncoder().encode(field.value)).trim();
}

/** Make the field as high as its text; the style sheet says how high at most. */
export function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}
