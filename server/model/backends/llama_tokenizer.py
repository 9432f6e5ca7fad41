"""llama.cpp's own tokenizer. It only reads its tables, and is thread-safe.

It splits a text by regular expressions that recurse: 30,000 letters without a blank overflow the
stack, and 16,000 digits take seconds. So a long text is given to it in portions.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

from server.model.backends import MORE_TOKENS, TOKENS_A_BYTE
from server.model.backends.llama_bindings import bindings
from server.model.files.restrictions import LONGEST_TOKEN

_PORTION = 4096  # letters
_SENTENCE_PIECE = 1  # LLAMA_VOCAB_TYPE_SPM: no regular expressions, and a blank before each text


class LlamaCppTokenizer:
    """See `Tokenizer`.

    Args:
        model: whose vocabulary it is; lives as long as this.
        control: ids that print nothing and never come out of `encode`.
    """

    def __init__(self, model: Any, control: frozenset[int]) -> None:
        self._c, self._model, self._control = bindings(), model, control
        self._is_split = self._c.llama_vocab_type(model.words) != _SENTENCE_PIECE
        self.pieces: Sequence[bytes] = _Pieces(model, control)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        portions = _portions(text) if self._is_split else [text]
        ids = [index for portion in portions for index in self._encode(portion.encode())]
        return [index for index in ids if index not in self._control]

    def _encode(self, raw: bytes) -> list[int]:
        most = TOKENS_A_BYTE * len(raw) + MORE_TOKENS
        ids = (ctypes.c_int32 * most)()
        count = self._c.llama_tokenize(self._model.words, raw, len(raw), ids, most, False, False)
        assert count >= 0, "there is room for all"
        return list(ids[:count])


# Cut before a blank that follows a letter, where no token goes on, or else anywhere.
def _portions(text: str) -> Iterator[str]:
    while len(text) > _PORTION:
        blanks = [match.end() for match in re.finditer(r"\S(?=\s)", text[:_PORTION])]
        at = blanks[-1] if blanks else _PORTION
        yield text[:at]
        text = text[at:]
    yield text


# Spelled when they are needed: some vocabularies have 262,144.
class _Pieces(Sequence[bytes]):
    def __init__(self, model: Any, control: frozenset[int]) -> None:
        self._model, self._control = model, control

    def __len__(self) -> int:
        return int(self._model.size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index in self._control:
            return b""
        buffer = ctypes.create_string_buffer(LONGEST_TOKEN)
        spell = bindings().llama_token_to_piece
        length = spell(self._model.words, index, buffer, LONGEST_TOKEN, 0, False)
        return buffer.raw[: max(0, length)]
