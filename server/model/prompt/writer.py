"""From a conversation to the token ids of a whole prompt.

Owns what stands around a user's words. Promises: the persona's tokens are always the first, in the
same order, which makes them reusable by prefix. Control tokens are placed by id and never parsed
from text, and what a user writes is cleaned first, so no prompt can forge a turn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.model.errors import PromptEmpty, PromptTooLong
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.prompt.templates import Control, Segment, Template
from server.model.prompt.tokenizer import Tokenizer

# Turns are dropped four at a time: dropping one per question would change the prefix each time and
# defeat the KV cache.
_DROPPED_AT_A_TIME = 4
_LEAST_QUESTION_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads before it answers."""

    tokens: Sequence[int]
    opening: Sequence[int] = ()  # the end of `tokens` that belongs to the answer already
    said: tuple[Sequence[int], ...] = ()  # the tokens of the talk's earlier answers


class PromptWriter:
    """Turns a conversation into the token ids of a whole prompt. Safe on any thread.

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
        self._persona = persona
        self._frame = self._open(persona)
        # Longer than any question, this stays the same prefix of every prompt.
        self.persona_tokens: Sequence[int] = tuple(self._frame.tokens)

    def write(self, conversation: Conversation, most_tokens: int, most_of_talk: int) -> Prompt:
        """The prompt of persona (or another system text), talk, question and fixed first words.

        Args:
            conversation: what is asked, and what was said before.
            most_tokens: of a prompt without anything before the question.
            most_of_talk: as far as the talk before it may fill up the prompt; the oldest
                turns are dropped for that.

        Raises:
            PromptEmpty: if nothing is left of the question once it is cleaned.
            PromptTooLong: if the question alone has no room.
        """
        user = self._clean(conversation.question)
        if not user:
            raise PromptEmpty("The prompt is empty.")
        system = self._clean(conversation.system or "")
        frame = self._open(Persona(system)) if system else self._frame
        question = self._encode(frame.rest, user=user)
        # Another system text is another character, whose first words are not ours.
        opening = "" if system else self._persona.openings.first_words(conversation)
        first_words = self._encode_opening(opening)
        room = most_tokens - len(frame.tokens) - len(first_words)
        if system and room < _LEAST_QUESTION_TOKENS:
            raise PromptTooLong(
                f"The system text has {len(frame.tokens):,} tokens, and this model's context has "
                f"room for {most_tokens - _LEAST_QUESTION_TOKENS:,}."
            )
        if len(question) > room:
            raise PromptTooLong(
                f"The prompt has {len(question):,} tokens, and this model's context has room "
                f"for {room:,}."
            )
        talk_room = most_of_talk - len(frame.tokens) - len(question) - len(first_words)
        turns = self._talk(conversation.turns, talk_room)
        talk = [token for turn in turns for token in turn.tokens]
        return Prompt(
            [*frame.tokens, *talk, *question, *first_words],
            first_words,
            tuple(turn.answer for turn in turns),
        )

    # The persona's examples are a talk, too: what any talk opens with, up to the user's words.
    def _open(self, persona: Persona) -> "_Frame":
        before, rest = _split(self._template.first_user)
        tokens = self._encode(before, system=persona.system)
        for example in persona.examples:
            tokens += self._encode(rest, user=example.question)
            tokens += self._encode(self._template.answer, answer=example.answer)
            before, rest = _split(self._template.user)
            tokens += self._encode(before)
        return _Frame(tokens, rest)

    # The latest turns that have room; the oldest are dropped in steps. Each is the tokens between
    # one user's words and the next, so that any may be dropped without a change to the others.
    # From the end, so that what is dropped costs nothing.
    def _talk(self, turns: Sequence[Turn], room: int) -> "list[_EncodedTurn]":
        kept: list[_EncodedTurn] = []
        for turn in reversed(turns):
            encoded = self._encode_turn(turn)
            room -= len(encoded.tokens)
            if room < 0:
                break
            kept.append(encoded)
        dropped = len(turns) - len(kept)
        in_steps = -(-dropped // _DROPPED_AT_A_TIME) * _DROPPED_AT_A_TIME
        kept = kept[: len(turns) - in_steps] or kept[:1]
        return kept[::-1]

    def _encode_turn(self, turn: Turn) -> "_EncodedTurn":
        before, rest = _split(self._template.user)
        question = self._encode(rest, user=self._clean(turn.question))
        spoken, marks = self._encode_answer(turn.answer)
        return _EncodedTurn([*question, *spoken, *marks, *self._encode(before)], spoken)

    # The answer and the marks after it. Always encoded from its text: the tokens it was generated
    # with may differ, and then the next answer would depend on whether the server still knows them.
    def _encode_answer(self, text: str) -> tuple[Sequence[int], list[int]]:
        pattern, marks = self._answer_and_marks()
        said = self._tokenizer.encode(pattern.format(answer=self._clean(text)))
        return said, self._encode(marks)

    def _encode_opening(self, text: str) -> list[int]:
        if not text:
            return []
        pattern, _ = self._answer_and_marks()
        return self._tokenizer.encode(pattern.format(answer=text).rstrip())

    # Every template's answer begins with the words.
    def _answer_and_marks(self) -> tuple[str, tuple[Segment, ...]]:
        pattern, *marks = self._template.answer
        assert isinstance(pattern, str)
        return pattern, tuple(marks)

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


@dataclass(frozen=True, slots=True)
class _EncodedTurn:
    """One turn of the conversation, encoded."""

    tokens: Sequence[int]
    answer: Sequence[int]  # the part of `tokens` that was said


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a prompt begins with, and the segments of a turn from the user's words on."""

    tokens: list[int]
    rest: tuple[Segment, ...]


def _holds(segment: Segment, name: str) -> bool:
    return isinstance(segment, str) and name in segment


# A turn, before and from the segment with the user's words.
def _split(turn: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    at = next(index for index, segment in enumerate(turn) if _holds(segment, "{user}"))
    return turn[:at], turn[at:]
