// Text that comes in pieces -> complete sentences. Pure.

// Intl.Segmenter ends a sentence behind these; a person does not.
const ABBREVIATION = /(?:^|[\s("])(?:Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e)\.\s*$/;

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

function clean(sentences) {
  return sentences.map((sentence) => sentence.trim()).filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
}
