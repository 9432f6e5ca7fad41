"""Who speaks: the persona file, the chat templates, and the tokens that both become.

Owns what stands around a user's words: `PromptWriter` turns them into the token ids of a
whole prompt, of which the persona's are always the first, in the same order (that is what
makes them reusable by prefix). Control tokens are placed by id and never parsed from
text, and what a user writes is cleaned first, so no prompt can forge a turn.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from server.model.errors import ModelFileError, PromptEmpty
from server.model.tokenizer import Tokenizer

_PERSONAS = Path(__file__).parent / "personas"
SOCRATES = _PERSONAS / "socrates.toml"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer, shown to the model as an example."""

    user: str
    answer: str


@dataclass(frozen=True, slots=True)
class Persona:
    """A character: what the model is told of itself, and a few examples of its talk."""

    system: str
    examples: tuple[Exchange, ...]


def find_persona(name: str) -> Path:
    """The file of one of our personas, or `name` as a path."""
    ours = _PERSONAS / f"{name}.toml"
    return ours if ours.exists() else Path(name)


def load_persona(path: Path) -> Persona:
    """Read a persona file (TOML: `system`, and any number of `[[examples]]`).

    Raises:
        ModelFileError: if there is none, or if it is no persona.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"The persona {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ModelFileError(f"The persona {path} is not TOML: {error}.") from error
    rows = table.get("examples", [])
    try:
        examples = [Exchange(_text(row["user"]), _text(row["answer"])) for row in rows]
        return Persona(_text(table["system"]), tuple(examples))
    except (KeyError, TypeError):
        raise ModelFileError(
            f"The persona {path} needs a text `system`, and in each of its [[examples]] "
            "the texts `user` and `answer`."
        ) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.strip()


class Control(Enum):
    """A control token, whose id depends on the model."""

    BOS = "beginning of a turn"
    EOS = "end of a turn"


Segment = str | Control


@dataclass(frozen=True, slots=True)
class Template:
    """How one family of models marks turns.

    Strings are `str.format` patterns over {system}, {user} and {answer}, each encoded on
    its own. `markers` are the plain texts by which the model tells turns apart.
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
    # Meta's llama repository, chat_completion(): the system text stands inside the first turn.
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


class PromptWriter:
    """Turns a user's words into the token ids of a whole prompt.

    Args:
        control_ids: the model's id for each `Control`.
    """

    def __init__(
        self,
        persona: Persona,
        template: Template,
        tokenizer: Tokenizer,
        control_ids: Mapping[Control, int],
    ) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._control_ids = control_ids
        self._markers = re.compile("|".join(map(re.escape, template.markers)), re.IGNORECASE)
        opening, question = self._arrange(persona)
        self._question = question
        # Longer than any question, this stays the same prefix of every prompt.
        self.persona_tokens: Sequence[int] = tuple(opening)

    def write(self, text: str) -> list[int]:
        """The token ids of the persona and `text` as the person's turn.

        Raises:
            PromptEmpty: if nothing is left of `text` once it is cleaned.
        """
        user = self._clean(text)
        if not user:
            raise PromptEmpty("The prompt is empty.")
        return [*self.persona_tokens, *self._encode(self._question, user=user)]

    # The tokens before the first user's words that vary, and the segments from there on.
    def _arrange(self, persona: Persona) -> tuple[list[int], tuple[Segment, ...]]:
        template, opening = self._template, list[int]()
        turn = template.first_user
        for example in persona.examples:
            opening += self._encode(turn, system=persona.system, user=example.user)
            opening += self._encode(template.answer, answer=example.answer)
            turn = template.user
        varying = next(
            index for index, part in enumerate(turn) if isinstance(part, str) and "{user}" in part
        )
        opening += self._encode(turn[:varying], system=persona.system)
        return opening, turn[varying:]

    def _encode(self, segments: Sequence[Segment], **texts: str) -> list[int]:
        tokens: list[int] = []
        for segment in segments:
            if isinstance(segment, Control):
                tokens.append(self._control_ids[segment])
            else:
                tokens += self._tokenizer.encode(segment.format(**texts))
        return tokens

    # A marker becomes a blank rather than nothing, so that what stood around it cannot
    # close up into another marker. C0 and C1 controls say nothing to a model, and NUL
    # would end the C tokenizer's string.
    def _clean(self, text: str) -> str:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self._markers.sub(" ", _CONTROLS.sub("", text)).strip()


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
