"""Writes prompts: turns a conversation into token ids.

Owns everything around a user's words. Promises: the persona's tokens always come first, in the same
order, so that the KV cache can reuse them as a prefix. Control tokens are placed by id and never
parsed from text, and what a user writes is cleaned first, so no prompt can forge a turn.
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
    opening: Sequence[int] = ()  # the end of `tokens` that is already part of the answer
    said: tuple[Sequence[int], ...] = ()  # the tokens of the conversation's earlier answers


class AnswerMemory:
    """The tokens of the latest answers as they were generated, keyed by text.

    Re-encoding an answer can give different tokens from those generated; from the first
    difference on, the KV cache would be lost. Written on the model thread, read anywhere.
    """

    _MOST = 256  # answers, each of a few KB at most

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[int, ...]] = {}

    def remember(self, text: str, tokens: Sequence[int]) -> None:
        """Keep the tokens of an answer that has ended."""
        self._tokens[text.strip()] = tuple(tokens)
        while len(self._tokens) > self._MOST:
            del self._tokens[next(iter(self._tokens))]

    def find(self, text: str) -> tuple[int, ...] | None:
        """The tokens of that answer, if it is known."""
        return self._tokens.get(text.strip())


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
        self.answers = AnswerMemory()
        self._persona = persona
        self._frame = self._open(persona)
        # The prefix of every prompt, whatever the question.
        self.persona_tokens: Sequence[int] = tuple(self._frame.tokens)

    def write(self, conversation: Conversation, most_tokens: int, most_of_talk: int) -> Prompt:
        """Write the prompt: persona (or another system text), turns, question, fixed first words.

        Args:
            conversation: what is asked, and what was said before.
            most_tokens: the limit for a prompt without earlier turns.
            most_of_talk: the limit for a prompt with earlier turns; the oldest are dropped to
                stay within it.

        Raises:
            PromptEmpty: if nothing is left of the question once it is cleaned.
            PromptTooLong: if the question does not fit even without earlier turns.
        """
        user = self._clean(conversation.question)
        if not user:
            raise PromptEmpty("The prompt is empty.")
        system = self._clean(conversation.system or "")
        frame = self._open(Persona(system)) if system else self._frame
        question = self._encode(frame.rest, user=user)
        # Another system text is another character, to which the persona's openings do not apply.
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

    # The start of every conversation, up to the user's words: the persona and its examples.
    def _open(self, persona: Persona) -> "_Frame":
        before, rest = _split(self._template.first_user)
        tokens = self._encode(before, system=persona.system)
        for example in persona.examples:
            tokens += self._encode(rest, user=example.question)
            tokens += self._encode(self._template.answer, answer=example.answer)
            before, rest = _split(self._template.user)
            tokens += self._encode(before)
        return _Frame(tokens, rest)

    # The latest turns that fit; the oldest are dropped in steps. A turn's tokens reach from one
    # question to the next, so that any turn can be dropped without a change to the others.
    # Encoded from the end, so that dropped turns cost nothing.
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

    # The answer and the marks after it. An answer generated here keeps its original tokens.
    def _encode_answer(self, text: str) -> tuple[Sequence[int], list[int]]:
        pattern, marks = self._answer_and_marks()
        spoken: Sequence[int] | None = self.answers.find(text)
        if spoken is None:
            spoken = self._tokenizer.encode(pattern.format(answer=self._clean(text)))
        return spoken, self._encode(marks)

    def _encode_opening(self, text: str) -> list[int]:
        if not text:
            return []
        pattern, _ = self._answer_and_marks()
        return self._tokenizer.encode(pattern.format(answer=text).rstrip())

    # In every template, the answer begins with its words, not with a mark.
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

    # A marker becomes a space rather than nothing, so that the text around it cannot join
    # into another marker. C0 and C1 controls mean nothing to a model, and NUL would end the
    # C tokenizer's string.
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
    """The start of a prompt, and the segments of a turn from the user's words on."""

    tokens: list[int]
    rest: tuple[Segment, ...]


def _holds(segment: Segment, name: str) -> bool:
    return isinstance(segment, str) and name in segment


# Split a turn before the segment with the user's words.
def _split(turn: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    at = next(index for index, segment in enumerate(turn) if _holds(segment, "{user}"))
    return turn[:at], turn[at:]
