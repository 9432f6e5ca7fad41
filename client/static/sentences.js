// Splits text that arrives in pieces into complete sentences. Pure.

// Intl.Segmenter ends a sentence after these; a person does not.
const ABBREVIATION = /(?:^|[\s("])(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e)\.\s*$/;

const MOST_LETTERS = 160;

/** Collects text and returns each sentence once the next one has begun. */
export class SentenceSplitter {
  #remaining = "";
  #segment = segmenter();

  /**
   * @param {string} text the next piece
   * @returns {string[]} the sentences that this piece completed
   */
  push(text) {
    this.#remaining += text;
    const sentences = this.#split();
    // The last one may continue.
    this.#remaining = sentences.pop() ?? "";
    return clean(sentences);
  }

  /** @returns {string[]} what is left, as sentences: the text has ended */
  end() {
    const sentences = this.#split();
    this.#remaining = "";
    return clean(sentences);
  }

  #split() {
    /** @type {string[]} */
    const sentences = [];
    for (const segment of this.#segment(this.#remaining)) {
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

/**
 * Firefox has Intl.Segmenter since 125, and only the voice needs sentences: a regular expression
 * will do elsewhere.
 *
 * @returns {(text: string) => Iterable<string>}
 */
function segmenter() {
  if (!globalThis.Intl?.Segmenter) return (text) => text.match(/[^.!?…]+[.!?…]*["'”’)]*\s*/g) ?? [];
  const found = new Intl.Segmenter("en", { granularity: "sentence" });
  return (text) => Array.from(found.segment(text), ({ segment }) => segment);
}

/**
 * Keep what can be said aloud, in parts short enough for Chrome.
 *
 * @param {string[]} sentences
 */
function clean(sentences) {
  return sentences.flatMap(shorten).filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
}

/**
 * Chrome falls silent 15 s into an utterance; a slow voice says some 12 characters a second.
 *
 * @param {string} sentence
 */
function shorten(sentence) {
  /** @type {string[]} */
  const parts = [];
  let remaining = sentence.trim();
  while (remaining.length > MOST_LETTERS) {
    const head = remaining.slice(0, MOST_LETTERS);
    const pause = Math.max(...[", ", "; ", ": "].map((mark) => head.lastIndexOf(mark))) + 1;
    const at = pause > MOST_LETTERS / 3 ? pause : head.lastIndexOf(" ");
    const cut = at > 0 ? at : MOST_LETTERS;
    parts.push(remaining.slice(0, cut).trim());
    remaining = remaining.slice(cut).trim();
  }
  return [...parts, remaining];
}
