"""What each engine cannot do with a well-formed GGUF file.

ctransformers 0.2.27 contains llama.cpp of September 2023: one architecture, one kind of vocabulary,
no tied matrices. It ignores or crashes on anything else, so every key, id, shape and type that its
C++ relies on is checked here first. llama.cpp may still run a file that fails here; by itself it
refuses nearly everything that is wrong.
"""

import math
import re

from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.gguf import BYTE, F32, STRING, U32, VOCABULARY, Head, missing_bytes
from server.model.files.tensors import Sizes, check_shapes, heads_fit, why_unreadable

_NO_GENERATORS = ("bert", "no_vocab", "none")  # embeddings, and files without a vocabulary
LONGEST_TOKEN = 4096  # bytes; the longest of SmolLM2 has 241
_MAX_HYPER_PARAMETER = 2**20
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")

# Keys that only a newer llama.cpp reads, each with the value that changes nothing.
_IGNORED = {
    "llama.attention.causal": True,
    "llama.attention.scale": None,
    "llama.attn_logit_softcapping": None,
    "llama.embedding_scale": 1,
    "llama.final_logit_softcapping": None,
    "llama.logit_scale": 1,
    "llama.residual_scale": 1,
}


def check_for_ctransformers(head: Head) -> None:
    """Check everything that ctransformers relies on.

    Raises:
        NotForCtransformers: naming the first thing that it cannot do.
    """
    _check_architecture(head)
    _check_arithmetic(head)
    _check_vocabulary(head)
    sizes = _read_sizes(head)
    for name, tensor in head.tensors.items():
        if why := why_unreadable(name, tensor.shape, tensor.kind):
            raise head.cursor.decline(why)
    check_shapes(head.cursor, {name: each.shape for name, each in head.tensors.items()}, sizes)


def check_for_llama_cpp(head: Head) -> None:
    """Check what llama.cpp does not check itself.

    Raises:
        ModelFileError: naming the first thing that would crash it or could not be printed.
    """
    kind = head.values.get(f"{VOCABULARY}model")
    if kind in _NO_GENERATORS:
        raise head.cursor.refuse(f"its vocabulary ({kind}) is not one for generating text")
    if why := _why_nonsense(head):
        raise head.cursor.refuse(why)
    words = set(head.tokens)
    if any(b"\0" in token or token.startswith(b"[EMPTY_") for token in words):
        raise head.cursor.refuse("its vocabulary is damaged")
    if len(words) + max(0, head.tokens.count(b"") - 1) < len(head.tokens):  # empty ones may repeat
        raise head.cursor.refuse("its vocabulary has a token twice")
    if (longest := max(map(len, words), default=0)) > LONGEST_TOKEN:
        raise head.cursor.refuse(f"its vocabulary has a token of {longest:,} bytes")
    # Tokenizing a byte that the vocabulary lacks throws a C++ exception, which ends the process.
    missing = missing_bytes(head)
    if missing and not _has_tokenizer(head):
        raise head.cursor.refuse(f"its vocabulary lacks {missing} of 256 byte tokens")


# The first size that llama.cpp would crash on, or None.
def _why_nonsense(head: Head) -> str | None:
    if head.number("{}.block_count", 0) < 1:
        return "it has no layers"
    heads = head.number("{}.attention.head_count", 0)
    width = head.number("{}.embedding_length", 0) // heads if heads > 0 else 0
    width = head.number("{}.attention.key_length", width)
    rotated = head.number("{}.rope.dimension_count", 0)
    if rotated % 2 or (width and rotated > width):
        return f"it rotates {rotated} dimensions of heads that have {width}"
    if head.number("{}.expert_used_count", 0) > head.number("{}.expert_count", 0):
        return "it uses more experts than it has"
    for name, value in head.values.items():
        if name.endswith("epsilon") and isinstance(value, float) and not value >= 0:
            return f"its {name} is {value}"
    return None


def _check_architecture(head: Head) -> None:
    if head.architecture != "llama":
        raise head.cursor.decline(
            f"its architecture is {head.architecture}, and ctransformers loads llama only, such "
            "as Llama 2, Mistral, TinyLlama and Zephyr"
        )
    if head.values.get(f"{VOCABULARY}model") != "llama":
        raise head.cursor.decline(
            "its vocabulary is not SentencePiece, which ctransformers needs (SmolLM2 has models "
            "in the catalogue that are adapted)"
        )


# What ctransformers would ignore, and so compute something else.
def _check_arithmetic(head: Head) -> None:
    values = head.values
    scaling, factor = values.get("llama.rope.scaling.type"), values.get("llama.rope.scaling.factor")
    unscaled = (None, 1) if scaling is None else (1,)
    if scaling != "none" and factor not in unscaled:
        raise head.cursor.decline(
            f"it scales its rotary positions ({scaling}, {factor}), which ctransformers would "
            "ignore"
        )
    experts = values.get("llama.expert_count")
    if isinstance(experts, int) and experts > 0:
        raise head.cursor.decline(
            f"it is a mixture of {experts} experts, which ctransformers lacks"
        )
    for key, usual in _IGNORED.items():
        if (value := values.get(key, usual)) != usual:
            raise head.cursor.decline(f"its {key} is {value}, which ctransformers would ignore")
    if values.get(f"{VOCABULARY}add_space_prefix") is False and not _has_tokenizer(head):
        raise head.cursor.decline(
            "its tokenizer puts no space before a text, and ctransformers' does"
        )


# With a tokenizer of its own beside it, the file's vocabulary does not have to tokenize.
def _has_tokenizer(head: Head) -> bool:
    return (head.cursor.path.parent / TOKENIZER_FILE).exists()


def _check_vocabulary(head: Head) -> None:
    arrays = {"tokens": (STRING,), "scores": (F32,), "token_type": (4, 5)}
    for name, kinds in arrays.items():
        key = f"{VOCABULARY}{name}"
        if key not in head.lengths:
            raise head.cursor.decline(f"its vocabulary has no {name}, which ctransformers needs")
        if head.kinds[key] not in kinds or head.lengths[key] != len(head.tokens):
            raise head.cursor.decline("its vocabulary is damaged")
    if b"<0x0A>" not in head.tokens:
        raise head.cursor.decline("its vocabulary has no token <0x0A> for the line feed")
    for name in ("bos", "eos", "unknown", "seperator", "padding"):  # as llama.cpp spells it
        key = f"{VOCABULARY}{name}_token_id"
        index = head.values.get(key, 0)
        if head.kinds.get(key, U32) != U32 or not isinstance(index, int):
            raise head.cursor.decline(f"its {key} is no u32")
        if not 0 <= index < len(head.tokens):
            raise head.cursor.decline(f"its {name} token is not in its vocabulary")
    for token, kind in zip(head.tokens, head.types, strict=True):
        if kind == BYTE and not _BYTE_TOKEN.fullmatch(token):
            raise head.cursor.decline("one of its byte tokens is malformed")


def _read_sizes(head: Head) -> Sizes:
    def size(key: str, default: int | None = None) -> int:
        name = f"llama.{key}"
        value = head.values.get(name, default)
        if value is None:
            raise head.cursor.decline(f"it has no {name}")
        if head.kinds.get(name, U32) != U32 or not isinstance(value, int):
            raise head.cursor.decline(f"its {name} is no u32")
        if not 0 < value <= _MAX_HYPER_PARAMETER:
            raise head.cursor.decline(f"its {name} is {value}")
        return value

    size("context_length")
    for name in ("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scale_linear"):
        key = f"llama.{name}"
        if name.endswith("epsilon") and key not in head.values:
            raise head.cursor.decline(f"it has no {key}")
        value = head.values.get(key, 1.0)
        if head.kinds.get(key, F32) != F32 or not isinstance(value, float):
            raise head.cursor.decline(f"its {key} is no f32")
        if not 0 < value < math.inf:
            raise head.cursor.decline(f"its {key} is {value}")
    if head.kinds.get("general.name", STRING) != STRING:
        raise head.cursor.decline("its general.name is no text")
    heads = size("attention.head_count")
    sizes = Sizes(
        vocabulary=len(head.tokens),
        embedding=size("embedding_length"),
        feed_forward=size("feed_forward_length"),
        heads=heads,
        kv_heads=size("attention.head_count_kv", heads),
        layers=size("block_count"),
    )
    rotated = size("rope.dimension_count", sizes.embedding // heads or 1)
    if not heads_fit(sizes.embedding, heads, rotated):
        raise head.cursor.decline("its numbers of attention heads do not fit together")
    width = sizes.embedding // heads
    for name in ("key_length", "value_length"):
        if size(f"attention.{name}", width) != width:
            raise head.cursor.decline(f"its heads have another {name} than ctransformers expects")
    if heads % sizes.kv_heads:
        raise head.cursor.decline("its numbers of attention heads do not fit together")
    return sizes
