"""Chat templates: how each family of models marks the turns of a conversation."""

from dataclasses import dataclass
from enum import Enum


class Control(Enum):
    """A control token, whose id depends on the model."""

    BOS = "beginning of a turn"
    EOS = "end of a turn"


Segment = str | Control


@dataclass(frozen=True, slots=True)
class Template:
    """How one family of models marks turns.

    Strings are `str.format` patterns over {system}, {user} and {answer}, each encoded on
    its own. `markers` are the plain texts that separate turns for the model.
    """

    first_user: tuple[Segment, ...]
    user: tuple[Segment, ...]
    answer: tuple[Segment, ...]
    markers: tuple[str, ...]


_BOS, _EOS = Control.BOS, Control.EOS
_CHATML_USER = (_BOS, "user\n", "{user}", _EOS, "\n", _BOS, "assistant\n")
_ZEPHYR_USER = ("<|user|>\n", "{user}", _EOS, "\n<|assistant|>\n")
TEMPLATES = {
    "chatml": Template(
        first_user=(_BOS, "system\n", "{system}", _EOS, "\n", *_CHATML_USER),
        user=_CHATML_USER,
        answer=("{answer}", _EOS, "\n"),
        markers=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    ),
    # Meta's llama repository, chat_completion(): the system text goes inside the first turn.
    "llama-2": Template(
        first_user=(_BOS, "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n", "{user} [/INST]"),
        user=(_BOS, "[INST] ", "{user} [/INST]"),
        answer=(" {answer} ", _EOS),
        markers=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<unk>"),
    ),
    "zephyr": Template(
        first_user=(_BOS, "<|system|>\n", "{system}", _EOS, "\n", *_ZEPHYR_USER),
        user=_ZEPHYR_USER,
        answer=("{answer}", _EOS, "\n"),
        markers=("<|system|>", "<|user|>", "<|assistant|>", "<s>", "</s>", "<unk>"),
    ),
}


def detect_template(chat_template: str) -> str:
    """The name of the template that a GGUF file's Jinja `chat_template` describes.

    Llama 2's is the fallback: the legacy files, which carry none, are mostly Llama 2.
    """
    if "<|im_start|>" in chat_template:
        return "chatml"
    if "<|user|>" in chat_template:
        return "zephyr"
    return "llama-2"
