"""Chat templates: the text that a model family puts around what people say.

A model file carries its template as Jinja source. It is rendered once, with marks in place of the
system text, the questions and the answers; what stands between the marks is the template's own
text. So no template is written by hand but Llama 2's, whose legacy files carry none.

Rendering is sandboxed, as Hugging Face does it: a template is somebody else's program.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.model.errors import ModelFileError
from server.model.files.catalog import expand
from server.model.files.modelfile import ModelFile
from server.model.prompt.confined import ConfinedError, run_confined

log = logging.getLogger(__name__)

AUTO, LLAMA_2 = "auto", "llama-2"  # what `--template` takes beside a file

# Meta's llama repository, chat_completion(): the system text stands inside the first question.
_LLAMA_2 = """
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}
{%- set talk = messages[1:] if system else messages -%}
{%- for message in talk -%}
{%- set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content']
      if loop.first and system else message['content'] -%}
{%- if message['role'] == 'user' -%}{{ bos_token + '[INST] ' + text + ' [/INST]' }}
{%- else -%}{{ ' ' + message['content'] + ' ' + eos_token }}{%- endif -%}
{%- endfor -%}
"""

# Letters only, so that no template trims, escapes or splits them.
_SYSTEM = "QsystemQ"
_QUESTIONS = ("QaskoneQ", "QasktwoQ", "QaskthreeQ")
_ANSWERS = ("QsayoneQ", "QsaytwoQ")
_BETWEEN_SYSTEM_AND_QUESTION = "\n\n"
_MOST_RENDERED = 100_000  # letters


class _Generation(Extension):
    """Hugging Face's {% generation %}, which marks what is trained on; it prints nothing itself."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateError(Exception):
    """A template cannot be used; `str(error)` says why, to follow "its chat template"."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template's own text, around what people say.

    A prompt is `before_system`, the system text, `before_first`, the first question, and then for
    each turn `before_answer`, the answer, `before_question`, the next question; at last `cue`,
    after which the model answers.
    """

    before_system: str
    before_first: str
    before_answer: str
    before_question: str
    cue: str
    has_system: bool = True  # if not, the system text opens the first question

    def marks(self, special: Sequence[str] = ()) -> tuple[str, ...]:
        """What separates turns for the model: `special` tokens and words that are no plain words.

        None of it may come out of what people write, and an answer ends before it.
        """
        own = (self.before_system, self.before_first, self.before_answer)
        text = "\n".join([*own, self.before_question, self.cue])
        found = {token: None for token in special if token in text}
        for token in found:
            text = text.replace(token, " ")
        words = (word for word in text.split() if re.search(r"\w", word) and not word.isalnum())
        return (*found, *dict.fromkeys(words))


def find_template(file: ModelFile, chosen: str = AUTO) -> Template:
    """The chat template for `file`.

    Args:
        file: the model's.
        chosen: AUTO for the file's own, LLAMA_2, or the path of a Jinja file.

    Raises:
        ModelFileError: if there is none, or if it cannot be used.
    """
    source, owner = file.chat_template, f"{file.path}"
    if chosen == LLAMA_2 or (chosen == AUTO and source is None and file.is_llama_2):
        source = _LLAMA_2
    elif chosen != AUTO:
        source, owner = _read(expand(chosen)), chosen
    if source is None:
        raise ModelFileError(
            f"The model file {file.path} has no chat template: name one, a Jinja file, "
            f"with --template, or --template {LLAMA_2} if it is a Llama 2."
        )
    try:
        template = compile_template(source, file.bos, file.eos)
    except TemplateError as error:
        raise ModelFileError(
            f"The chat template of {owner} {error}; --template takes another, a Jinja file."
        ) from error
    if not template.has_system:
        log.info("the chat template takes no system text: it opens the first question")
    return template


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ModelFileError(f"The chat template {path} cannot be read: {reason}.") from error


@lru_cache(maxsize=4)  # the server asks before it listens, and the loader once more
def compile_template(source: str, bos: str, eos: str) -> Template:
    """Take the Jinja template `source` apart, in a process with bounded time and memory.

    Args:
        source: as in the model file.
        bos: the text of the token at the beginning, which a template may print.
        eos: that of the token at the end.

    Raises:
        TemplateError: if it is no Jinja, fails, takes too much time or memory, or does not treat
            all turns alike.
    """
    try:
        return run_confined(_compile, source, bos, eos)
    except ConfinedError as error:
        raise TemplateError(str(error)) from error


def _compile(source: str, bos: str, eos: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda _: ""
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        template = environment.from_string(source)
    except MemoryError:
        raise
    except Exception as error:  # constants are evaluated here already
        raise TemplateError(f"is not Jinja: {error}") from error

    def render(has_system: bool, turns: int) -> str:
        messages = _conversation(has_system, turns)
        try:
            text = template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=bos,
                eos_token=eos,
                enable_thinking=False,  # Qwen3's and others' name for it: a talk wants no essay
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is a program: it fails as it likes
            raise TemplateError(f"fails: {error}") from error
        if len(text) > _MOST_RENDERED:
            raise TemplateError("prints too much")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise TemplateError("prints what is not valid Unicode") from None
        return text

    try:
        return _take_apart(render(True, 3), render(True, 1), has_system=True)
    except TemplateError:  # it knows no system text, or puts it elsewhere
        return _take_apart(render(False, 3), render(False, 1), has_system=False)


def _conversation(has_system: bool, turns: int) -> list[dict[str, Any]]:
    questions = list(_QUESTIONS[:turns])
    messages = []
    if has_system:
        messages.append({"role": "system", "content": _SYSTEM})
    else:
        questions[0] = f"{_SYSTEM}{_BETWEEN_SYSTEM_AND_QUESTION}{questions[0]}"
    for question, answer in zip(questions, (*_ANSWERS, None), strict=False):
        messages.append({"role": "user", "content": question})
        if answer and len(messages) < 2 * turns + has_system - 1:
            messages.append({"role": "assistant", "content": answer})
    return messages


def _take_apart(three: str, one: str, has_system: bool) -> Template:
    first, second, third = _QUESTIONS
    marks = (_SYSTEM, first, _ANSWERS[0], second, _ANSWERS[1], third)
    head, opening, answered, asked, answered_again, asked_again, cue = _split(three, marks)
    alone = _split(one, (_SYSTEM, first))
    is_regular = (answered, asked) == (answered_again, asked_again) and alone == [
        head,
        opening,
        cue,
    ]
    if not is_regular:
        raise TemplateError("does not treat all turns of a conversation alike")
    return Template(head, opening, answered, asked, cue, has_system)


# What stands before, between and after the marks.
def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise TemplateError("does not print each message once, in order")
        parts.append(before)
    return [*parts, text]


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
