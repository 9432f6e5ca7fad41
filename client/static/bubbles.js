// The bubbles of the conversation. Everything said is inserted as text, never as markup.

const NEAR_END_PX = 40;
const LAST = "last"; // a button that only the last question or answer has

/**
 * @param {HTMLElement} chat
 * @param {string} text
 * @param {() => void} onEdit called when the visitor wants to put it otherwise
 */
export function addQuestion(chat, text, onEdit) {
  const question = make("article", "bubble you");
  question.append(make("p", "text", text), button("Edit", onEdit, LAST));
  chat.append(question);
  toEnd(chat);
}

/** @param {HTMLElement} chat @returns {Answer} an empty answer at the end of `chat` */
export function addAnswer(chat) {
  return new Answer(chat);
}

/** Only the last question can be changed or asked again. @param {HTMLElement} chat */
export function dropActions(chat) {
  for (const button of chat.querySelectorAll(`.${LAST}`)) button.remove();
}

/** Remove the last question and its answer. @param {HTMLElement} chat */
export function dropLast(chat) {
  const question = [...chat.querySelectorAll(".you")].at(-1);
  while (question?.nextElementSibling) question.nextElementSibling.remove();
  question?.remove();
}

/** @param {HTMLElement} chat */
export function dropAll(chat) {
  for (const bubble of chat.querySelectorAll(".bubble")) bubble.remove();
}

/** @param {HTMLElement} chat @returns {string} all that was said, for a file */
export function toText(chat) {
  return [...chat.querySelectorAll(".bubble")]
    .map((bubble) => {
      const name = bubble.classList.contains("you") ? "You" : "Socrates";
      return `${name}: ${bubble.querySelector(".text")?.textContent?.trim() ?? ""}\n`;
    })
    .join("\n");
}

/** One answer: its text as it arrives, and then how it ended. */
export class Answer {
  #chat;
  #bubble = make("article", "bubble socrates");
  #text = make("p", "text");
  #foot = make("p", "note");

  /** @param {HTMLElement} chat */
  constructor(chat) {
    this.#chat = chat;
    this.#bubble.setAttribute("aria-busy", "true");
    this.#bubble.append(this.#text, this.#foot);
    chat.append(this.#bubble);
    toEnd(chat);
  }

  get text() {
    return this.#text.textContent ?? "";
  }

  /** Show quietly why there is no text yet. @param {string} words */
  wait(words) {
    this.#foot.textContent = words;
  }

  /** @param {string} text */
  append(text) {
    this.#follow(() => this.#text.append(text));
  }

  /**
   * Mark the answer as ended: say how, unless it is complete, and offer to ask `again`.
   *
   * @param {string} words
   * @param {() => void} [again]
   */
  end(words, again) {
    this.#follow(() => this.#showEnd(words, again));
  }

  // Scrolls with a change only while the reader is at the end.
  /** @param {() => void} change */
  #follow(change) {
    const { scrollHeight, scrollTop, clientHeight } = scroller(this.#chat);
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    change();
    if (isAtEnd) toEnd(this.#chat);
  }

  /** @param {string} words @param {(() => void) | undefined} again */
  #showEnd(words, again) {
    this.#bubble.setAttribute("aria-busy", "false");
    this.#foot.textContent = words;
    if (!this.text) this.#text.remove();
    if (this.text) this.#foot.append(button("Copy", (self) => this.#copy(self)));
    if (again) this.#foot.append(button(words ? "Retry" : "Again", again, LAST));
    if (words) this.#foot.setAttribute("role", "status");
  }

  remove() {
    this.#bubble.remove();
  }

  /** @param {HTMLElement} self */
  async #copy(self) {
    try {
      await navigator.clipboard.writeText(this.text.trim());
      self.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to secure pages only: let the reader press Ctrl-C.
      getSelection()?.selectAllChildren(this.#text);
      self.textContent = "Selected";
    }
  }
}

/**
 * What scrolls: the conversation, or on short screens the whole page (style.css).
 *
 * @param {HTMLElement} chat
 */
function scroller(chat) {
  const isOwn = getComputedStyle(chat).overflowY !== "visible";
  return isOwn ? chat : (document.scrollingElement ?? chat);
}

/** @param {HTMLElement} chat */
function toEnd(chat) {
  const element = scroller(chat);
  element.scrollTop = element.scrollHeight;
}

/**
 * @param {keyof HTMLElementTagNameMap} tag
 * @param {string} className
 */
function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  element.dir = "auto";
  return element;
}

/**
 * @param {string} words
 * @param {(self: HTMLElement) => void} act
 */
function button(words, act, className = "") {
  const element = make("button", `plain ${className}`.trim(), words);
  element.setAttribute("type", "button");
  element.addEventListener("click", () => act(element));
  return element;
}
