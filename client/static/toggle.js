// A button that is on or off, and is found so the next time.

/**
 * @param {HTMLButtonElement} button
 * @param {boolean} isOn at first, if nothing else is remembered
 * @param {(isOn: boolean) => void} onChange is called at once, and at every change
 */
export function addToggle(button, isOn, onChange) {
  const show = (now) => {
    button.setAttribute("aria-pressed", String(now));
    onChange(now);
  };
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    show(now);
    remember(button.id, String(now));
  });
  const remembered = recall(button.id);
  show(remembered === null ? isOn : remembered === "true");
}

/** @param {string} name @param {string} value */
export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Denied by the browser's settings: not remembered, then.
  }
}

/** @param {string} name @returns {string | null} */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
