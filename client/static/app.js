// The page: joins its parts, and owns the one answer that may be under way.

import { addAnswer, addQuestion, dropActions, dropAll, dropLast, toText } from "./bubbles.js";
import { Conversation } from "./conversation.js";
import { describeExcess, grow, read } from "./input.js";
import { Reconnector } from "./reconnect.js";
import { SentenceSplitter } from "./sentences.js";
import { Speaker } from "./speech.js";
import { keep, kept, recall, remember } from "./storage.js";
import { ask, Refusal } from "./stream.js";
import { addToggle } from "./toggle.js";
import { Waiting } from "./waiting.js";

const KEY = "key"; // the name under which the server's key is remembered
const TALK = "talk"; // and the conversation
const DROPPED = "dropped"; // why an answer is stopped: nothing of it is to be kept
const UNAUTHORIZED = 401;

const welcome = find("welcome", HTMLElement);
const newTalk = find("new-talk", HTMLElement);
const save = find("save", HTMLElement);
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
let isLastKept = false; // whether the last turn is in `conversation`
const lastTalk = kept(TALK); // before the toggle of memory, which keeps the present one
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
  keepTalk();
});
newTalk.addEventListener("click", beginNewTalk);
save.addEventListener("click", saveTalk);
restoreTalk();

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
  showTalk(true);
  dropActions(chat); // otherwise an old question would be answered below the new one
  addQuestion(chat, prompt, () => edit(prompt));
  answer(prompt);
}

/**
 * Ask the last question once more: the server draws anew.
 *
 * @param {string} prompt
 * @param {import("./bubbles.js").Answer} bubble what was answered
 */
function askAgain(prompt, bubble) {
  if (running) return;
  const last = isLastKept ? bubble.text : "";
  bubble.remove();
  cutTalk();
  answer(prompt, last);
}

/** @param {string} prompt the last question, to be put otherwise */
function edit(prompt) {
  dropAnswer();
  dropLast(chat);
  cutTalk();
  input.value = prompt;
  grow(input);
  input.focus();
}

/** @param {boolean} isOne whether there is a talk; without one the page welcomes */
function showTalk(isOne) {
  welcome.hidden = isOne;
  newTalk.hidden = save.hidden = !isOne;
}

function beginNewTalk() {
  dropAnswer();
  conversation.clear();
  keepTalk();
  dropAll(chat);
  showTalk(false);
  input.focus();
}

function saveTalk() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toText(chat)], { type: "text/plain" }));
  link.download = "socrates.txt";
  link.click();
  URL.revokeObjectURL(link.href);
}

// After the toggle of memory, which decides whether there is anything to restore.
function restoreTalk() {
  conversation.restore(lastTalk);
  keepTalk();
  for (const { question, answer } of conversation.turns) {
    showTalk(true);
    dropActions(chat);
    addQuestion(chat, question, () => edit(question));
    const bubble = addAnswer(chat);
    bubble.append(answer);
    bubble.end("", () => askAgain(question, bubble));
    isLastKept = true;
  }
}

/** @param {string} question @param {string} answer */
function addToTalk(question, answer) {
  isLastKept = conversation.add(question, answer);
  keepTalk();
}

// What the browser keeps is cut only when a new turn takes its place: a reload loses nothing.
function cutTalk() {
  if (isLastKept) conversation.cut();
  isLastKept = false;
}

function keepTalk() {
  keep(TALK, conversation.save());
}

/**
 * Ask and show the answer. Call it within a tap or key press: iOS lets a page speak only then.
 *
 * @param {string} prompt
 * @param {string} [last] what was answered before, and counts again if nothing comes now
 */
async function answer(prompt, last = "") {
  const bubble = addAnswer(chat);
  running = new AbortController();
  const { signal } = running;
  const waiting = new Waiting(
    (url) => fetchHere(url, { signal }),
    (words) => bubble.wait(words),
  );
  const again = () => askAgain(prompt, bubble);
  isLastKept = false;
  setBusy(true);
  announcer.replaceChildren();
  announce("Socrates is thinking.");
  try {
    speaker.stop();
    speaker.prime();
    const sentences = new SentenceSplitter();
    const say = (/** @type {string} */ sentence) => {
      speaker.say(sentence);
      announce(sentence);
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
    addToTalk(prompt, bubble.text);
    bubble.end(bubble.text ? "" : "Socrates said nothing.", again);
  } catch (error) {
    waiting.end();
    explain(error, signal, bubble, prompt, again);
    if (last && !isLastKept && signal.reason !== DROPPED) addToTalk(prompt, last);
  } finally {
    running = null;
    setBusy(false);
  }
}

/**
 * @param {unknown} error
 * @param {AbortSignal} signal
 * @param {import("./bubbles.js").Answer} bubble
 * @param {string} prompt
 * @param {() => void} again
 */
function explain(error, signal, bubble, prompt, again) {
  if (signal.reason === DROPPED) return;
  if (signal.aborted) {
    speaker.stop();
    bubble.end("Stopped.", again);
    addToTalk(prompt, bubble.text); // the visitor has seen it; a broken answer is asked again
    return;
  }
  if (error instanceof Refusal) {
    bubble.end(error.message, again);
    if (error.status === UNAUTHORIZED) askForKey(again);
  } else {
    bubble.end(bubble.text ? "The answer broke off here." : "The connection was lost.", again);
    reconnector.check();
  }
}

// Added and not replaced: of several that come at once a screen reader would read only the last.
/** @param {string} sentence */
function announce(sentence) {
  const line = document.createElement("p");
  line.textContent = sentence;
  announcer.append(line);
}

/** @param {boolean} isBusy */
function setBusy(isBusy) {
  const isFocusFree = document.activeElement === document.body || document.activeElement === stop;
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  // Not on a phone, where focus brings up a keyboard over what was just said.
  if (!isBusy && isFocusFree && hasKeyboard) input.focus({ preventScroll: true });
}

// Its question is about to leave the page, even if it still waits for the key.
function dropAnswer() {
  running?.abort(DROPPED);
  speaker.stop();
  retryWithKey = null;
  keyForm.hidden = true;
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
