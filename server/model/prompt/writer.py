"""Writes prompts: turns a conversation into token ids.

Owns what stands around a user's words. Promises: the persona's tokens are always the first, in the
same order, which makes them reusable by prefix. Control tokens are placed by id and never parsed
from what people write, which is cleaned of a template's marks, so no prompt can forge a turn. Text
between two special tokens is encoded as one, as the model saw it in training.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.model.errors import PromptEmpty, PromptTooLong
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.prompt.templates import Template
from server.model.prompt.tokenizer import Tokenizer

# Turns are dropped four at a time: dropping one per question would change the prefix each time and
# defeat the KV cache.
_DROPPED_AT_A_TIME = 4
_LEAST_QUESTION_TOKENS = 32

Item = int | str  # a special token's id, or text


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads before it answers."""

    tokens: Sequence[int]
    opening: Sequence[int] = ()  # the end of `tokens` that belongs to the answer already
    said: tuple[Sequence[int], ...] = ()  # the tokens of the conversation's earlier answers


class PromptWriter:
    """Turns a conversation into the token ids of a whole prompt. Safe on any thread.

    Args:
        persona: who speaks, unless a conversation brings a system text of its own.
        template: the model's.
        tokenizer: for what stands between special tokens.
        special: ids of the tokens that the template may use, by their text.
        bos: the id that every prompt begins with, or None.
        swallowing: special tokens that swallow the whitespace after them, as Phi-3's do.
    """

    def __init__(
        self,
        persona: Persona,
        template: Template,
        tokenizer: Tokenizer,
        special: Mapping[str, int],
        bos: int | None = None,
        swallowing: Collection[int] = (),
    ) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._special = special
        self._bos = bos
        self._swallowing = swallowing
        marks = template.marks(tuple(special))
        named = sorted((mark for mark in marks if mark in special), key=len, reverse=True)
        self._special_text = re.compile("|".join(map(re.escape, named)) or "(?!)")
        self.stops = tuple(mark for mark in marks if mark not in special)
        self._marks = re.compile("|".join(map(re.escape, marks)) or "(?!)", re.IGNORECASE)
        self._persona = persona
        self._frame = self._open(persona)

    @property
    def persona_tokens(self) -> Sequence[int]:
        """What every prompt of this persona begins with."""
        return self._frame.tokens

    def write(self, conversation: Conversation, most_tokens: int, most_of_talk: int) -> Prompt:
        """The prompt of persona (or another system text), turns, question and fixed first words.

        Args:
            conversation: what is asked, and what was said before.
            most_tokens: of a prompt without anything before the question.
            most_of_talk: as far as the turns before it may fill up the prompt; the oldest are
                dropped for that.

        Raises:
            PromptEmpty: if nothing is left of the question once it is cleaned.
            PromptTooLong: if the question does not fit even without earlier turns.
        """
        user = self._clean(conversation.question)
        if not user:
            raise PromptEmpty("The prompt is empty.")
        system = self._clean(conversation.system or "")
        frame = self._open(Persona(system)) if system else self._frame
        question = [user, *self._literal(self._template.cue)]
        # Another system text is another character, to which the persona's openings do not apply.
        is_ours = not system and not conversation.begun
        opening = self._persona.openings.first_words(conversation) if is_ours else ""
        begun = opening or self._clean(conversation.begun)
        first_words = self._tokenizer.encode(begun) if begun else []
        frame_length = len(frame.tokens) + len(self._encode(frame.tail))
        room = most_tokens - frame_length - len(first_words)
        if system and room < _LEAST_QUESTION_TOKENS:
            raise _too_long("the system text", frame_length, most_tokens - _LEAST_QUESTION_TOKENS)
        length = len(frame.tokens) + len(self._encode([*frame.tail, *question])) - frame_length
        if length > room:
            raise _too_long("it", length, room)
        turns = self._latest(
            conversation.turns, most_of_talk - frame_length - length - len(first_words)
        )
        items = [*frame.tail, *(item for turn in turns for item in self._turn(turn)), *question]
        return Prompt(
            [*frame.tokens, *self._encode(items), *first_words],
            first_words if opening else (),
            tuple(self._tokenizer.encode(self._clean(turn.answer)) for turn in turns),
        )

    # What a prompt begins with, up to the first question that is asked: the persona's examples are
    # turns, too.
    def _open(self, persona: Persona) -> "_Frame":
        template = self._template
        items = self._literal(template.before_system)
        if self._bos is not None and items[:1] != [self._bos]:
            items.insert(0, self._bos)
        items += [persona.system, *self._literal(template.before_first)]
        for example in persona.examples:
            items += self._turn(example)
        places = [place for place, item in enumerate(items) if isinstance(item, int)]
        end = places[-1] + 1 if places else 0
        return _Frame(self._encode(items[:end]), items[end:])

    # From a question up to the next one. Always encoded from its text: the tokens that an answer
    # was generated with may differ, and the next answer would depend on whether we still know them.
    def _turn(self, turn: Turn) -> list[Item]:
        answered = self._literal(self._template.before_answer)
        asked = self._literal(self._template.before_question)
        return [self._clean(turn.question), *answered, self._clean(turn.answer), *asked]

    # The latest turns that have room; the oldest are dropped in steps. From the end, so that what
    # is dropped costs nothing.
    def _latest(self, turns: Sequence[Turn], room: int) -> Sequence[Turn]:
        kept = 0
        for turn in reversed(turns):
            room -= len(self._encode(self._turn(turn)))
            if room < 0:
                break
            kept += 1
        dropped = len(turns) - kept
        in_steps = -(-dropped // _DROPPED_AT_A_TIME) * _DROPPED_AT_A_TIME
        return turns[in_steps:] or turns[len(turns) - min(kept, 1) :]

    # A template's own text, its special tokens recognised.
    def _literal(self, text: str) -> list[Item]:
        items: list[Item] = []
        while match := self._special_text.search(text):
            token, text = self._special[match[0]], text[match.end() :]
            items += [match.string[: match.start()], token]
            if token in self._swallowing:
                text = text.lstrip()
        return [item for item in [*items, text] if item != ""]

    # What stands between two special tokens is one text.
    def _encode(self, items: Iterable[Item]) -> list[int]:
        tokens: list[int] = []
        run = ""
        for item in items:
            if isinstance(item, str):
                run += item
                continue
            tokens += [*self._tokenizer.encode(run), item] if run else [item]
            run = ""
        return [*tokens, *self._tokenizer.encode(run)] if run else tokens

    # A mark becomes a space rather than nothing, so that what stood around it cannot close up into
    # another mark. C0 and C1 controls say nothing to a model, and NUL would end the C tokenizer's
    # string.
    def _clean(self, text: str) -> str:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self._marks.sub(" ", _CONTROLS.sub("", text)).strip()


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# Programs look for these words (LangChain, for one).
def _too_long(what: str, length: int, room: int) -> PromptTooLong:
    return PromptTooLong(
        f"The prompt is too long for the model's context length: "
        f"{what} has {length:,} tokens, and there is room for {room:,}."
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a prompt begins with: up to its last special token, and the text after that."""

    tokens: Sequence[int]
    tail: Sequence[Item]  # becomes one text with the question
