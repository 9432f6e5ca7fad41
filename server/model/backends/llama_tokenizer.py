"""llama.cpp's own tokenizer. It only reads tables, so it is thread-safe.

Its regular expressions recurse: 30,000 letters without a space overflow the stack, and 16,000
digits take seconds. So a long text is tokenized in portions.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

from server.model.backends import MORE_TOKENS, TOKENS_A_BYTE
from server.model.backends.llama_bindings import bindings
from server.model.files.restrictions import LONGEST_TOKEN

_PORTION = 4096  # characters
_SENTENCE_PIECE = 1  # LLAMA_VOCAB_TYPE_SPM: no regular expressions, and a space before each text


class LlamaCppTokenizer:
    """See `Tokenizer`.

    Args:
        model: whose vocabulary to use; kept alive.
        control: ids that print nothing and that `encode` never returns.
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


# Cut before whitespace that follows a word, which no token spans; if there is none, anywhere.
def _portions(text: str) -> Iterator[str]:
    while len(text) > _PORTION:
        spaces = [match.end() for match in re.finditer(r"\S(?=\s)", text[:_PORTION])]
        at = spaces[-1] if spaces else _PORTION
        yield text[:at]
        text = text[at:]
    yield text


# Each is spelled when it is needed: some vocabularies have 262,144.
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
