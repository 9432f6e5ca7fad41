"""Random models of a few hundred KB, in the architectures that people ask for today."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers

from tests.support.gguf_model import finish

WIDTH, INNER, LAYERS, CONTEXT = 64, 96, 4, 2048
HEADS, KV_HEADS = 4, 2

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = CHATML + (
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>"
    "\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(first='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.first = m.content + '\n\n' %}{% else %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' + ns.first + "
    "m.content | trim + '<end_of_turn>\n' }}{% set ns.first = '' %}{% endif %}{% endfor %}"
    "{{ '<start_of_turn>model\n' }}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + "
    "'[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
    "{% else %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """One architecture as its converters write it."""

    architecture: str
    pre: str  # llama.cpp's name for the pre-tokenizer; "" for SentencePiece
    template: str
    marks: tuple[str, ...]  # control tokens: BOS, EOS, others
    end: str  # of them, what ends an answer
    has_bos: bool = True
    head: int = WIDTH // HEADS  # values of a head
    is_tied: bool = True
    biased: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()  # besides attn_norm and ffn_norm
    fused: bool = False
    extra: dict = field(default_factory=dict)  # further keys, without the architecture
    rope_factors: bool = False


FAMILIES = {
    "llama3": Family(
        "llama", "llama-bpe", LLAMA_3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>", extra={"rope.freq_base": 500000.0}, rope_factors=True,
    ),
    "qwen2": Family(
        "qwen2", "qwen2", CHATML, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"), "<|im_end|>",
        has_bos=False, biased=("attn_q", "attn_k", "attn_v"),
    ),
    "qwen3": Family(
        "qwen3", "qwen2", THINKING, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"), "<|im_end|>",
        has_bos=False, head=32, norms=("attn_q_norm", "attn_k_norm"),
    ),
    "gemma3": Family(
        "gemma3", "", GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>",
        head=32, norms=("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
        extra={"attention.sliding_window": 32, "rope.freq_base": 1000000.0},
    ),
    "phi3": Family(
        "phi3", "", PHI_3, ("<s>", "</s>", "<unk>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>", is_tied=False, fused=True,
        extra={"rope.scaling.original_context_length": CONTEXT},
    ),
    "smollm3": Family(
        "smollm3", "llama-bpe", THINKING, ("<|begin_of_text|>", "<|im_end|>", "<|im_start|>"),
        "<|im_end|>", has_bos=False,
    ),
    "mistral": Family(
        "llama", "tekken", MISTRAL,
        ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "</s>",
        head=32, is_tied=False,
    ),
}  # fmt: skip


def write_family(path: Path, name: str, families=FAMILIES) -> Path:
    """Write the random model of that family to `path`; every call writes the same one."""
    family = families[name]
    writer = GGUFWriter(path, family.architecture)
    _add_keys(writer, family)
    count = _add_vocabulary(writer, family)
    for tensor, data in _tensors(family, count).items():
        writer.add_tensor(tensor, data)
    finish(writer)
    return path


def _add_keys(writer: GGUFWriter, family: Family) -> None:
    writer.add_name(f"Random {family.architecture}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(family.head)
    writer.add_value_length(family.head)
    writer.add_rope_dimension_count(family.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_chat_template(family.template)
    for key, value in family.extra.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{family.architecture}.{key}", value)


def _add_vocabulary(writer: GGUFWriter, family: Family) -> int:
    kinds = [TokenType.CONTROL] * len(family.marks)
    if family.pre:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*family.marks, *letters, "th", "he", "\u0120a"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(family.pre)
        writer.add_token_merges(["t h", "h e", "\u0120 a"])
    else:
        letters = [f"<0x{byte:02X}>" for byte in range(256)]
        tokens = [*family.marks, *letters, "\u2581", "\u2581a", "t", "h", "e", "th"]
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(index) for index in range(len(tokens))])
        writer.add_add_space_prefix(False)
        kinds += [TokenType.BYTE] * 256
    kinds += [TokenType.NORMAL] * (len(tokens) - len(kinds))
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(family.marks.index(family.end))
    writer.add_add_bos_token(family.has_bos)
    return len(tokens)


def _tensors(family: Family, tokens: int) -> dict:
    draw = np.random.default_rng(1)

    def matrix(rows, columns):
        return draw.normal(scale=0.2, size=(rows, columns)).astype(np.float32)

    wide, narrow = family.head * HEADS, family.head * KV_HEADS
    found = {
        "token_embd.weight": matrix(tokens, WIDTH),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    if not family.is_tied:
        found["output.weight"] = matrix(tokens, WIDTH)
    if family.rope_factors:
        found["rope_freqs.weight"] = np.linspace(1, 8, family.head // 2, dtype=np.float32)
    shapes = {"attn_output": (WIDTH, wide), "ffn_down": (WIDTH, INNER)}
    if family.fused:
        shapes |= {"attn_qkv": (wide + 2 * narrow, WIDTH), "ffn_up": (2 * INNER, WIDTH)}
    else:
        shapes |= {"attn_q": (wide, WIDTH), "attn_k": (narrow, WIDTH), "attn_v": (narrow, WIDTH)}
        shapes |= {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH)}
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm", *family.norms):
            size = family.head if name in ("attn_q_norm", "attn_k_norm") else WIDTH
            found[f"blk.{layer}.{name}.weight"] = np.ones(size, np.float32)
        for name, shape in shapes.items():
            found[f"blk.{layer}.{name}.weight"] = matrix(*shape)
        for name in family.biased:
            found[f"blk.{layer}.{name}.bias"] = matrix(1, shapes[name][0])[0]
    return found


def write_gpt2(path: Path, positions: int) -> Path:
    """Write a random GPT-2, whose positions are learned and end."""
    family = Family(
        "gpt2",
        "gpt-2",
        CHATML,
        ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
        "<|im_end|>",
        has_bos=False,
    )
    writer = GGUFWriter(path, family.architecture)
    writer.add_context_length(positions)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_chat_template(family.template)
    count = _add_vocabulary(writer, family)
    draw = np.random.default_rng(1)
    shapes = {
        "token_embd": (count, WIDTH), "position_embd": (positions, WIDTH), "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,), "blk.0.attn_qkv": (3 * WIDTH, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER),
    }  # fmt: skip
    for name, shape in shapes.items():
        for part, size in (("weight", shape), ("bias", shape[:1])):
            if part == "weight" or "embd" not in name:
                data = draw.normal(scale=0.2, size=size).astype(np.float32)
                writer.add_tensor(f"{name}.{part}", data)
    finish(writer)
    return path
