// Speaks sentences in order. The browser's speech objects are passed in; where there are
// none, every call does nothing.

/**
 * Choose Socrates' voice: the Greek Nestoras, else any Greek one, else the default.
 *
 * @template {{name: string, lang: string}} Voice
 * @param {Voice[]} voices
 * @returns {Voice | undefined} undefined for the browser's default
 */
export function chooseVoice(voices) {
  const greek = voices.filter(({ lang }) => /^el([-_]|$)/i.test(lang)); // Android writes el_GR
  return greek.find(({ name }) => /nestoras/i.test(name)) ?? greek[0];
}

/** One speaker. Utterances queue up in the browser, which keeps their order. */
export class Speaker {
  #synthesis;
  #Utterance;
  #muted = false;

  /**
   * @param {SpeechSynthesis | undefined} synthesis
   * @param {typeof SpeechSynthesisUtterance | undefined} Utterance
   */
  constructor(synthesis, Utterance) {
    this.#synthesis = synthesis;
    this.#Utterance = Utterance;
  }

  /** Unlock speech. Call it within a tap or key press: iOS lets a page speak only then. */
  prime() {
    this.#speak(" "); // an empty one never ends in some WebKits, and what follows is not spoken
  }

  /** @param {string} sentence */
  say(sentence) {
    // Asterisks and the like are not spoken: *laughs* is said as laughs.
    if (!this.#muted) this.#speak(sentence.replace(/[*_#`~]+/g, ""));
  }

  /** @param {string} sentence */
  #speak(sentence) {
    if (!this.#synthesis || !this.#Utterance) return;
    const utterance = new this.#Utterance(sentence);
    // Looked up every time: browsers load their voices after the page.
    const voice = chooseVoice(this.#synthesis.getVoices());
    if (voice) {
      utterance.voice = voice;
      utterance.lang = voice.lang;
    }
    this.#synthesis.speak(utterance);
  }

  /** Fall silent at once, and drop the sentences still queued. */
  stop() {
    this.#synthesis?.cancel();
  }

  /** @param {boolean} muted */
  set muted(muted) {
    this.#muted = muted;
    if (muted) this.stop();
  }
}
