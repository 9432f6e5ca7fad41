// The page: joins its parts, and owns the one answer that may be under way.

import { addAnswer, addQuestion, dropRetries } from "./bubbles.js";
import { Conversation } from "./conversation.js";
import { describeExcess, grow, read } from "./input.js";
import { Reconnector } from "./reconnect.js";
import { SentenceSplitter } from "./sentences.js";
import { Speaker } from "./speech.js";
import { recall, remember } from "./storage.js";
import { ask, Refusal } from "./stream.js";
import { addToggle } from "./toggle.js";
import { Waiting } from "./waiting.js";

const KEY = "key"; // the name under which the server's key is remembered
const UNAUTHORIZED = 401;

const chat = find("chat", HTMLElement);
const form = find("form", HTMLFormElement);
const input = find("prompt", HTMLTextAreaElement);
const send = find("send", HTMLButtonElement);
const stop = find("stop", HTMLButtonElement);
const keyForm = find("key-form", HTMLFormElement);
const keyInput = find("key", HTMLInputElement);
const notice = find("notice", HTMLElement);
const announcer = find("announcer", HTMLElement);

const fetchHere = window.fetch.bind(window);
const conversation = new Conversation();
const speaker = new Speaker(window.speechSynthesis, window.SpeechSynthesisUtterance);
const reconnector = new Reconnector(fetchHere, {
  onLost: () => notify({ lost: "The server cannot be reached. Trying again…" }),
  onBack: (status) => {
    notify({ lost: "" });
    find("version", HTMLElement).textContent = `Version ${status.version}, ${status.model}.`;
  },
});
const notices = { lost: "", complaint: "" }; // `lost` takes precedence
/** @type {AbortController | null} */
let running = null; // aborts the answer under way
/** @type {(() => void) | null} */
let retryWithKey = null; // repeats the question that was refused for lack of a key

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = read(input);
  if (!prompt || running) return;
  if (describeExcess(prompt)) return; // the notice already says so
  input.value = "";
  grow(input);
  begin(prompt);
});

input.addEventListener("input", () => {
  grow(input);
  notify({ complaint: describeExcess(read(input)) });
});

// A phone's keyboard has no Shift+Enter: there Enter breaks the line, and the button sends.
const hasKeyboard = matchMedia("(hover: hover)").matches;
input.enterKeyHint = hasKeyboard ? "send" : "enter";
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !isComposing(event) && hasKeyboard) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || isComposing(event)) return;
  running?.abort();
  speaker.stop(); // speech ends later than the text
});

// The second click of a double click on Send lands on Stop, which takes its place.
stop.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort();
});

for (const starter of document.querySelectorAll(".starter")) {
  starter.addEventListener("click", () => {
    if (!running) begin(starter.textContent ?? "");
  });
}

addToggle(find("mute", HTMLElement), false, (isOn) => {
  speaker.muted = isOn;
});
addToggle(find("memory", HTMLElement), true, (isOn) => {
  conversation.isKept = isOn;
});

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  remember(KEY, keyInput.value.trim());
  keyForm.hidden = true;
  retryWithKey?.();
});

// A page kept in the back/forward cache keeps its socket: leaving must stop the model, too.
window.addEventListener("pagehide", () => {
  running?.abort();
  speaker.stop();
});
window.addEventListener("offline", () => reconnector.lose());

reconnector.check();

/**
 * Whether an input method is at work; Safari says so by the key code alone when Enter commits.
 *
 * @param {KeyboardEvent} event
 */
function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** @param {string} prompt */
function begin(prompt) {
  document.getElementById("welcome")?.remove();
  dropRetries(chat); // otherwise a retried old question would be answered below the new one
  addQuestion(chat, prompt);
  answer(prompt);
}

/**
 * Ask and show the answer. Call it within a tap or key press: iOS lets a page speak only then.
 *
 * @param {string} prompt
 */
async function answer(prompt) {
  const bubble = addAnswer(chat);
  running = new AbortController();
  const { signal } = running;
  const waiting = new Waiting(
    (url) => fetchHere(url, { signal }),
    (words) => bubble.wait(words),
  );
  setBusy(true);
  announcer.textContent = "Socrates is thinking.";
  try {
    speaker.stop();
    speaker.prime();
    const sentences = new SentenceSplitter();
    const say = (/** @type {string} */ sentence) => {
      speaker.say(sentence);
      announcer.textContent = sentence;
    };
    await waiting.begin();
    await ask(conversation.request(prompt), {
      fetch: fetchHere,
      key: recall(KEY),
      signal,
      onText(text) {
        waiting.end();
        bubble.append(text);
        sentences.push(text).forEach(say);
      },
    });
    waiting.end();
    sentences.end().forEach(say);
    bubble.end(bubble.text ? "" : "Socrates said nothing.");
    conversation.add(prompt, bubble.text);
  } catch (error) {
    waiting.end();
    explain(error, signal, bubble, prompt);
  } finally {
    announcer.textContent = bubble.text; // once and whole, for screen readers
    running = null;
    setBusy(false);
  }
}

/**
 * @param {unknown} error
 * @param {AbortSignal} signal
 * @param {import("./bubbles.js").Answer} bubble
 * @param {string} prompt
 */
function explain(error, signal, bubble, prompt) {
  if (signal.aborted) {
    speaker.stop();
    bubble.end("Stopped.");
    conversation.add(prompt, bubble.text); // the user has seen it; a broken answer is retried
    return;
  }
  const retry = () => {
    if (running) return;
    bubble.remove();
    answer(prompt);
  };
  if (error instanceof Refusal) {
    bubble.end(error.message, retry);
    if (error.status === UNAUTHORIZED) askForKey(retry);
  } else {
    bubble.end(bubble.text ? "The answer broke off here." : "The connection was lost.", retry);
    reconnector.check();
  }
}

/** @param {boolean} isBusy */
function setBusy(isBusy) {
  const isFocusFree = document.activeElement === document.body || document.activeElement === stop;
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  // Not on a phone, where focus brings up a keyboard over what was just said.
  if (!isBusy && isFocusFree && hasKeyboard) input.focus({ preventScroll: true });
}

/** @param {() => void} retry */
function askForKey(retry) {
  retryWithKey = retry;
  keyForm.hidden = false;
  keyInput.focus();
}

/**
 * Update the notice only when it changes: otherwise a screen reader would read it again.
 *
 * @param {Partial<typeof notices>} news
 */
function notify(news) {
  Object.assign(notices, news);
  const sentence = notices.lost || notices.complaint;
  if (notice.textContent !== sentence) notice.textContent = sentence;
}

/**
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
function find(id, kind) {
  const element = document.getElementById(id);
  if (element instanceof kind) return element;
  throw new Error(`The page has no ${kind.name} named ${id}.`);
}
