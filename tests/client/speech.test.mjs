// The speaker, with a stand-in for the browser's speech.

import assert from "node:assert/strict";
import test from "node:test";

import { chooseVoice, Speaker } from "../../client/static/speech.js";

const NESTORAS = { name: "Microsoft Nestoras Online", lang: "el-GR" };
const MELINA = { name: "Melina", lang: "el-GR" };
const DANIEL = { name: "Daniel", lang: "en-GB" };

function fakeSpeech(voices = []) {
  const said = [];
  return {
    said,
    getVoices: () => voices,
    speak: ({ text, voice }) => said.push([text, voice?.name]),
    cancel: () => said.push("cancel"),
  };
}

class Utterance {
  constructor(text) {
    this.text = text;
  }
}

test("Nestoras before any Greek voice before the default", () => {
  assert.equal(chooseVoice([DANIEL, MELINA, NESTORAS]), NESTORAS);
  assert.equal(chooseVoice([DANIEL, MELINA]), MELINA);
  assert.equal(chooseVoice([DANIEL]), undefined);
  assert.equal(chooseVoice([]), undefined);
});

test("sentences are spoken in order", () => {
  const speech = fakeSpeech([DANIEL, NESTORAS]);
  const speaker = new Speaker(speech, Utterance);
  speaker.prime();
  speaker.say("One.");
  speaker.say("Two.");
  assert.deepEqual(speech.said, [
    [" ", NESTORAS.name],
    ["One.", NESTORAS.name],
    ["Two.", NESTORAS.name],
  ]);
});

test("mute silences at once and keeps silent", () => {
  const speech = fakeSpeech();
  const speaker = new Speaker(speech, Utterance);
  speaker.say("One.");
  speaker.muted = true;
  speaker.say("Two.");
  speaker.muted = false;
  speaker.say("Three.");
  assert.deepEqual(speech.said, [["One.", undefined], "cancel", ["Three.", undefined]]);
});

test("no speech in the browser is no error", () => {
  const speaker = new Speaker(undefined, undefined);
  speaker.prime();
  speaker.say("One.");
  speaker.stop();
  speaker.muted = true;
});

test("emotes are said without their asterisks", () => {
  const speech = fakeSpeech();
  new Speaker(speech, Utterance).say("*laughs* Is _that_ so?");
  assert.deepEqual(speech.said, [["laughs Is that so?", undefined]]);
});

test("Android's way of writing a language code is understood", () => {
  const voice = { name: "Greek", lang: "el_GR" };
  assert.equal(chooseVoice([DANIEL, voice]), voice);
});
