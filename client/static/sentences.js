// Text that comes in pieces -> complete sentences. Pure.

// Intl.Segmenter ends a sentence after these; a person does not.
const ABBREVIATION = /(?:^|[\s("])(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e)\.\s*$/;

const MOST_LETTERS = 160;

/** Collects text and gives back sentences once the next one has begun. */
export class SentenceSplitter {
  #rest = "";
  #segmenter = new Intl.Segmenter("en", { granularity: "sentence" });

  /**
   * @param {string} text the next piece
   * @returns {string[]} the sentences that this piece completed
   */
  push(text) {
    this.#rest += text;
    const sentences = this.#split();
    // The last one may go on.
    this.#rest = sentences.pop() ?? "";
    return clean(sentences);
  }

  /** @returns {string[]} what is left, as sentences: the text has ended */
  end() {
    const sentences = this.#split();
    this.#rest = "";
    return clean(sentences);
  }

  #split() {
    const sentences = [];
    for (const { segment } of this.#segmenter.segment(this.#rest)) {
      const last = sentences.at(-1);
      if (last !== undefined && ABBREVIATION.test(last)) {
        sentences[sentences.length - 1] = last + segment;
      } else {
        sentences.push(segment);
      }
    }
    return sentences;
  }
}

// What can be said aloud, in parts short enough for Chrome.
function clean(sentences) {
  return sentences.flatMap(shorten).filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
}

// Chrome falls silent 15 s into an utterance; a slow voice says some 12 characters a second.
function shorten(sentence) {
  const parts = [];
  let rest = sentence.trim();
  while (rest.length > MOST_LETTERS) {
    const head = rest.slice(0, MOST_LETTERS);
    const pause = Math.max(...[", ", "; ", ": "].map((mark) => head.lastIndexOf(mark))) + 1;
    const at = pause > MOST_LETTERS / 3 ? pause : head.lastIndexOf(" ");
    const cut = at > 0 ? at : MOST_LETTERS;
    parts.push(rest.slice(0, cut).trim());
    rest = rest.slice(cut).trim();
  }
  return [...parts, rest];
}
