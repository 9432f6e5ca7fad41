"""Converts text to token ids and token ids to bytes.

A `tokenizer.json` beside the model goes before ctransformers' tokenizer, but llama.cpp's is used
wherever the file's own vocabulary can spell every byte (backends/). All of them only read their
tables, so they may be called on the event loop while the model thread evaluates. None knows control
tokens: they are placed by id (writer.py).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as _HubTokenizer
from tokenizers import decoders

from server.model.errors import ModelFileError
from server.model.files.bytelevel import BYTE_OF_LETTER

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer(Protocol):
    """What the engine needs from a tokenizer."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each token id: b"" for control tokens. May end inside a character."""

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, without any control token."""


class HubTokenizer:
    """Hugging Face `tokenizers` on a `tokenizer.json`.

    Args:
        path: of the file.
        control: ids that print nothing and never come out of `encode`.
        vocabulary_size: of the model, which must have a row for every id.

    Raises:
        ModelFileError: if the file cannot be read as a tokenizer, or is another model's.
    """

    def __init__(self, path: Path, control: frozenset[int], vocabulary_size: int) -> None:
        try:
            self._tokenizer = _HubTokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise ModelFileError(f"The tokenizer file {path} cannot be read: {error}.") from error
        # The file is somebody's configuration of another program: what it would cut off, fill up
        # or recognise in a user's text has no effect here.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._control = control
        vocabulary = self._tokenizer.get_vocab()
        if max(vocabulary.values(), default=0) >= vocabulary_size:
            raise ModelFileError(
                f"The tokenizer file {path} belongs to another model: it has token "
                f"{max(vocabulary.values()):,}, and the model has {vocabulary_size:,} tokens."
            )
        self.pieces = self._pieces(vocabulary, control, vocabulary_size)

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [index for index in ids if index not in self._control]

    # An added token that is no control token, such as a tag, is printed as it is written.
    def _pieces(
        self, vocabulary: dict[str, int], control: frozenset[int], size: int
    ) -> list[bytes]:
        added = self._tokenizer.get_added_tokens_decoder()
        spell = _byte_level if _is_byte_level(self._tokenizer) else _sentence_piece
        pieces = [b""] * size
        for token, index in vocabulary.items():
            if index not in control:
                pieces[index] = token.encode() if index in added else spell(token)
        return pieces


def _is_byte_level(tokenizer: _HubTokenizer) -> bool:
    return isinstance(tokenizer.decoder, decoders.ByteLevel)


# Letters outside the alphabet (a control token's, say) spell themselves.
def _byte_level(token: str) -> bytes:
    return b"".join(
        bytes((BYTE_OF_LETTER[letter],)) if letter in BYTE_OF_LETTER else letter.encode()
        for letter in token
    )


def _sentence_piece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes((int(match[1], 16),))
    return token.replace("\u2581", " ").encode()
