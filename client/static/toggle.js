// A button that is on or off, and keeps its state for the next visit.

import { recall, remember } from "./storage.js";

/**
 * @param {HTMLElement} button
 * @param {boolean} isOn the state, if none is remembered
 * @param {(isOn: boolean) => void} onChange called at once, and at every change
 */
export function addToggle(button, isOn, onChange) {
  const show = (/** @type {boolean} */ now) => {
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
