"""Adapts GGUF files of the SmolLM2 family to what ctransformers 0.2.27 can load.

Owns the rewriting of one file into two, a GGUF with a SentencePiece-style
vocabulary and an untied output matrix, and a Hugging Face `tokenizer.json`.

Why it is needed (each point found in ctransformers' C++ sources or by experiment):
  * loading fails without `output.weight`, because this llama.cpp predates tied
    embeddings, and without `tokenizer.ggml.scores`;
  * its GPT-2 tokenizer reads past the end of its tables on unknown bytes, so the
    vocabulary is declared SentencePiece here and is never used to tokenize:
    `tokenizer.json` does that.

Promises: `adapt` writes only to the two paths it is given. The caller makes the
result atomic (__main__.py). The serving process never imports this module.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm

from server.model.files.adapter import Adapter
from server.model.files.bytelevel import BYTE_OF_LETTER

_TOKENS = "tokenizer.ggml.tokens"
_MERGES = "tokenizer.ggml.merges"
_TYPES = "tokenizer.ggml.token_type"
_REWRITTEN = {
    "general.architecture",  # GGUFWriter writes it by itself
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    _TOKENS,
    _MERGES,
    _TYPES,
}
_WORD_BOUNDARY = "\u2581".encode()  # SentencePiece writes a space as U+2581


def is_adaptable(path: Path) -> bool:
    """Whether `path` is a file that `adapt` knows: a Llama with SmolLM2's tokenizer."""
    try:
        fields = GGUFReader(path).fields
    except (ValueError, IndexError, OSError):  # not GGUF, or damaged
        return False
    wanted = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
    }
    return all(key in fields and fields[key].contents() == wanted[key] for key in wanted)


def adapt(
    source: Path, target: Path, tokenizer_target: Path, adapter: Adapter | None = None
) -> None:
    """Rewrite the GGUF `source` (llama architecture, GPT-2 vocabulary) for ctransformers.

    Args:
        source: the file as published.
        target: the GGUF file to write.
        tokenizer_target: the `tokenizer.json` to write.
        adapter: what to merge into the tensors.

    Raises:
        KeyError: if `source` lacks a GPT-2 vocabulary.
        AdapterError: if the adapter is another model's.
        OSError: if a file cannot be read or written.
    """
    reader = GGUFReader(source)
    tokens: list[str] = reader.fields[_TOKENS].contents()
    merges: list[str] = reader.fields[_MERGES].contents()
    types: list[int] = reader.fields[_TYPES].contents()
    _write_tokenizer(tokens, merges, tokenizer_target)
    writer = GGUFWriter(target, "llama")
    _copy_metadata(reader, writer)
    _add_vocabulary(writer, tokens, merges, types)
    _copy_tensors(reader, writer, adapter)
    writer.close()


def _write_tokenizer(tokens: Sequence[str], merges: Sequence[str], target: Path) -> None:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    # SmolLM2 was trained on digits split one by one, then GPT-2's byte level. Control
    # tokens are deliberately not declared: a user's text can then never produce one.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(target))


def _copy_metadata(reader: GGUFReader, writer: GGUFWriter) -> None:
    for field in reader.fields.values():
        if field.name in _REWRITTEN or field.name.startswith("GGUF."):
            continue
        item_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=item_type)


def _add_vocabulary(
    writer: GGUFWriter, tokens: Sequence[str], merges: Iterable[str], types: Sequence[int]
) -> None:
    rank_of = {merge.replace(" ", ""): rank for rank, merge in enumerate(merges)}
    last_rank = len(rank_of)
    adapted = [_adapt_token(*pair) for pair in zip(tokens, types, strict=True)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in adapted])
    writer.add_token_types([kind for _, kind in adapted])
    writer.add_token_scores([-float(rank_of.get(token, last_rank)) for token in tokens])


# A GPT-2 token is text in 256 stand-in letters; SentencePiece needs the bytes themselves,
# and a single byte that is not a printable character in the form <0xNN>.
def _adapt_token(token: str, kind: int) -> tuple[bytes, int]:
    if kind != TokenType.NORMAL:
        return token.encode(), kind
    raw = bytes(BYTE_OF_LETTER[letter] for letter in token)
    if len(raw) == 1 and not 0x20 <= raw[0] < 0x7F:
        return b"<0x%02X>" % raw[0], TokenType.BYTE
    return raw.replace(b" ", _WORD_BOUNDARY), kind


def _copy_tensors(reader: GGUFReader, writer: GGUFWriter, adapter: Adapter | None) -> None:
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    tensors = [(tensor.name, tensor) for tensor in reader.tensors]
    tensors.append(("output.weight", embedding))
    for name, tensor in tensors:
        writer.add_tensor_info(
            name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    size = sum(tensor.data.nbytes for _, tensor in tensors)
    with tqdm(total=size, unit="B", unit_scale=True, desc="adapting") as bar:
        for name, tensor in tensors:
            if adapter is not None and name in adapter.names:
                writer.write_tensor_data(adapter.merge(tensor))
            else:
                writer.write_tensor_data(tensor.data)
            bar.update(tensor.data.nbytes)
