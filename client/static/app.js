// The page: owns its elements and the one answer that may be under way.

import { SentenceSplitter } from "./sentences.js";
import { Speaker } from "./speech.js";
import { ask, Refusal } from "./stream.js";

const chat = document.getElementById("chat");
const form = document.getElementById("form");
const field = document.getElementById("prompt");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const mute = document.getElementById("mute");
const notice = document.getElementById("notice");

const speaker = new Speaker(window.speechSynthesis, window.SpeechSynthesisUtterance);
let running = null; // the AbortController of the answer under way

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = field.value.trim();
  if (!prompt || running) return;
  speaker.stop();
  speaker.prime();
  field.value = "";
  addBubble("you").textContent = prompt;
  converse(prompt);
});

field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

stop.addEventListener("click", () => running?.abort());

mute.addEventListener("click", () => {
  const muted = mute.getAttribute("aria-pressed") !== "true";
  mute.setAttribute("aria-pressed", String(muted));
  speaker.muted = muted;
});

// A page kept in the back/forward cache keeps its socket: leaving must stop the model, too.
window.addEventListener("pagehide", () => {
  running?.abort();
  speaker.stop();
});

showVersion();

async function converse(prompt) {
  const answer = addBubble("socrates");
  const sentences = new SentenceSplitter();
  begin(answer);
  try {
    await ask(prompt, {
      fetch: window.fetch.bind(window),
      signal: running.signal,
      onText(text) {
        append(answer, text);
        sentences.push(text).forEach((sentence) => speaker.say(sentence));
      },
    });
    sentences.end().forEach((sentence) => speaker.say(sentence));
  } catch (error) {
    explain(error, answer, prompt);
  } finally {
    end(answer);
  }
}

function begin(answer) {
  running = new AbortController();
  notice.textContent = "";
  answer.classList.add("waiting");
  answer.setAttribute("aria-busy", "true");
  send.hidden = true;
  stop.hidden = false;
}

function end(answer) {
  running = null;
  answer.classList.remove("waiting");
  answer.setAttribute("aria-busy", "false");
  if (!answer.textContent) answer.remove();
  send.hidden = false;
  stop.hidden = true;
  field.focus();
}

function explain(error, answer, prompt) {
  if (running.signal.aborted) {
    speaker.stop();
    addNote(answer, "Stopped.");
    return;
  }
  if (answer.textContent) addNote(answer, "The answer broke off here.");
  else field.value ||= prompt; // nothing was said: the question is there to be sent again
  notice.textContent =
    error instanceof Refusal ? error.message : "The connection was lost. Please try again.";
}

function addBubble(who) {
  const bubble = document.createElement("p");
  bubble.className = `bubble ${who}`;
  chat.append(bubble);
  chat.scrollTop = chat.scrollHeight;
  return bubble;
}

function addNote(answer, text) {
  const note = document.createElement("span");
  note.className = "note";
  note.textContent = text;
  answer.append(note);
}

// The view follows only while the reader is at its end.
function append(answer, text) {
  const isAtEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 40;
  answer.append(text);
  if (isAtEnd) chat.scrollTop = chat.scrollHeight;
}

async function showVersion() {
  try {
    const status = await (await fetch("/status")).json();
    document.getElementById("version").textContent = `Version ${status.version}, ${status.model}.`;
  } catch {
    notice.textContent = "The server does not answer. Is it running?";
  }
}
