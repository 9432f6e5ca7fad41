// What the browser keeps for this page: settings for good, the conversation for this tab. Other
// servers may be under other paths of the same origin, so names have the page's path before them.

const PLACE = (globalThis.location?.pathname ?? "/").replace(/[^/]*$/, "");

/** @param {string} name @param {string} value */
export function remember(name, value) {
  write(() => localStorage, name, value);
}

/** @param {string} name @returns {string | null} */
export function recall(name) {
  return read(() => localStorage, name);
}

/**
 * Keep for a reload, and for a phone that drops the tab meanwhile.
 *
 * @param {string} name
 * @param {string | null} value null keeps nothing
 */
export function keep(name, value) {
  write(() => sessionStorage, name, value);
}

/** @param {string} name @returns {string | null} */
export function kept(name) {
  return read(() => sessionStorage, name);
}

/**
 * The settings of a browser may deny even the object: then nothing is kept.
 *
 * @param {() => Storage} storage
 * @param {string} name
 * @param {string | null} value
 */
function write(storage, name, value) {
  try {
    if (value === null) storage().removeItem(PLACE + name);
    else storage().setItem(PLACE + name, value);
  } catch {
    // denied, or full
  }
}

/** @param {() => Storage} storage @param {string} name */
function read(storage, name) {
  try {
    return storage().getItem(PLACE + name);
  } catch {
    return null;
  }
}
