// The page: joins its parts, and owns the one answer that may be under way.

import { addAnswer, addQuestion, dropRetries } from "./conversation.js";
import { grow, read, tooLong } from "./field.js";
import { Lookout } from "./lookout.js";
import { SentenceSplitter } from "./sentences.js";
import { Speaker } from "./speech.js";
import { ask, Refusal } from "./stream.js";
import { Talk } from "./talk.js";
import { addToggle, recall, remember } from "./toggle.js";
import { Wait } from "./wait.js";

const KEY = "key"; // the name under which the server's key is remembered
const UNAUTHORIZED = 401;

const chat = document.getElementById("chat");
const form = document.getElementById("form");
const field = document.getElementById("prompt");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const keyForm = document.getElementById("key-form");
const notice = document.getElementById("notice");
const announcer = document.getElementById("announcer");

const fetchHere = window.fetch.bind(window);
const talk = new Talk();
const speaker = new Speaker(window.speechSynthesis, window.SpeechSynthesisUtterance);
const lookout = new Lookout(fetchHere, {
  onLost: () => tell({ lost: "The server cannot be reached. Trying again…" }),
  onBack: (status) => {
    tell({ lost: "" });
    document.getElementById("version").textContent = `Version ${status.version}, ${status.model}.`;
  },
});
const said = { lost: "", complaint: "" }; // what `notice` has to say; the former comes first
let running = null; // the AbortController of the answer under way
let retryWithKey = null; // asks again what was refused for want of a key

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = read(field);
  if (!prompt || running) return;
  if (tooLong(prompt)) return; // the notice already says so
  field.value = "";
  grow(field);
  begin(prompt);
});

field.addEventListener("input", () => {
  grow(field);
  tell({ complaint: tooLong(read(field)) });
});

field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  running?.abort();
  speaker.stop(); // a voice takes longer than the text
});

// The second click of a double one on Send meets Stop in the same place.
stop.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort();
});

for (const starter of document.querySelectorAll(".starter")) {
  starter.addEventListener("click", () => {
    if (!running) begin(starter.textContent);
  });
}

addToggle(document.getElementById("mute"), false, (isOn) => (speaker.muted = isOn));
addToggle(document.getElementById("memory"), true, (isOn) => (talk.isKept = isOn));

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  remember(KEY, document.getElementById("key").value.trim());
  keyForm.hidden = true;
  retryWithKey?.();
});

// A page kept in the back/forward cache keeps its socket: leaving must stop the model, too.
window.addEventListener("pagehide", () => {
  running?.abort();
  speaker.stop();
});
window.addEventListener("offline", () => lookout.lose());

lookout.look();

function begin(prompt) {
  document.getElementById("welcome")?.remove();
  dropRetries(chat); // otherwise a retried old question would be answered below the new one
  addQuestion(chat, prompt);
  answer(prompt);
}

// Called within the tap or key press: iOS lets a page speak only after that.
async function answer(prompt) {
  speaker.stop();
  speaker.prime();
  const bubble = addAnswer(chat);
  const sentences = new SentenceSplitter();
  running = new AbortController();
  const { signal } = running;
  const wait = new Wait((url) => fetchHere(url, { signal }), (words) => bubble.wait(words));
  setBusy(true);
  try {
    await wait.begin();
    await ask(talk.request(prompt), {
      fetch: fetchHere,
      key: recall(KEY),
      signal,
      onText(text) {
        wait.end();
        bubble.append(text);
        sentences.push(text).forEach((sentence) => speaker.say(sentence));
      },
    });
    wait.end();
    sentences.end().forEach((sentence) => speaker.say(sentence));
    bubble.end(bubble.text ? "" : "Socrates said nothing.");
    talk.add(prompt, bubble.text);
  } catch (error) {
    wait.end();
    explain(error, signal, bubble, prompt);
  } finally {
    announcer.textContent = bubble.text; // once and whole, for those who listen
    running = null;
    setBusy(false);
  }
}

function explain(error, signal, bubble, prompt) {
  if (signal.aborted) {
    speaker.stop();
    bubble.end("Stopped.");
    talk.add(prompt, bubble.text); // it was read; one that broke off is asked again
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
    lookout.look();
  }
}

function setBusy(isBusy) {
  const isFocusFree = [document.body, stop].includes(document.activeElement);
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  // Not on a phone, where focus brings up a keyboard over what was just said.
  if (!isBusy && isFocusFree && matchMedia("(hover: hover)").matches) field.focus();
}

function askForKey(retry) {
  retryWithKey = retry;
  keyForm.hidden = false;
  document.getElementById("key").focus();
}

// Written only when it changes: a screen reader would read it again.
function tell(news) {
  Object.assign(said, news);
  const sentence = said.lost || said.complaint;
  if (notice.textContent !== sentence) notice.textContent = sentence;
}
