"""Reads the older GGML v3 container `ggjt` (read_magic and its neighbours in llama-ggml.cpp)."""

from server.model.files.cursor import Cursor
from server.model.files.modelfile import CTRANSFORMERS, ModelFile
from server.model.files.tensors import dimension_count, heads_fit, tensor_bytes, why_unreadable

_ALIGNMENT = 32
_MAX_HYPER_PARAMETER = 2**20
_KEY_AND_VALUE_BYTES = 2 * 2
_TENSORS_A_LAYER, _OTHER_TENSORS = 9, 3


def read_ggjt(cursor: Cursor) -> ModelFile:
    """Walk the whole file.

    Raises:
        ModelFileError: if it cannot be loaded.
    """
    cursor.skip(4)
    version = cursor.number("I")
    if version != 3:
        raise cursor.refuse(
            f"it is GGML 'ggjt' version {version}, and version 3 is supported: take it as GGUF"
        )
    vocabulary_size, embedding, multiple = (cursor.number("I") for _ in range(3))
    heads, layers, rotated = (cursor.number("I") for _ in range(3))
    cursor.skip(4)  # ftype: informative, every tensor has its own type
    if not all(0 < n <= _MAX_HYPER_PARAMETER for n in (embedding, multiple, heads, layers)):
        raise cursor.refuse("its hyper-parameters are damaged")
    if not heads_fit(embedding, heads, rotated):
        raise cursor.refuse("its numbers of attention heads do not fit together")
    for _ in range(vocabulary_size):
        cursor.skip(cursor.number("I") + 4)  # the token's bytes and its f32 score
    if cursor.at == len(cursor.data):
        raise cursor.refuse("it has no tensors")
    count = 0
    while cursor.at < len(cursor.data):
        _skip_tensor(cursor)
        count += 1
    if count != layers * _TENSORS_A_LAYER + _OTHER_TENSORS:
        raise cursor.refuse(f"it has {count:,} tensors, which are not those of a Llama")
    return ModelFile(
        cursor.path,
        len(cursor.data),
        "llama",
        CTRANSFORMERS,
        layers * embedding * _KEY_AND_VALUE_BYTES,
        trained_context=None,
        chat_template=None,
        is_llama_2=True,
        special={"<unk>": 0, "<s>": 1, "</s>": 2},
        control=frozenset({0, 1, 2}),
        bos="<s>",
        eos="</s>",
        adds_bos=True,
    )


def _skip_tensor(cursor: Cursor) -> None:
    dimensions_count = dimension_count(cursor)
    name_length, kind = cursor.number("I"), cursor.number("I")
    dimensions = [cursor.number("I") for _ in range(dimensions_count)]
    name = cursor.take(name_length).decode("utf-8", "replace")
    cursor.align(_ALIGNMENT)
    if why := why_unreadable(name, dimensions, kind):
        raise cursor.refuse(why)
    cursor.skip(tensor_bytes(dimensions, kind))
