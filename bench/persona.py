"""Does the small model stay Socrates? Our persona next to one line that says who he is.

Every question is answered by both, with the same seeds and sampling, on the model that the
SOCRATES_ variables choose. Four things are looked at in each answer, by rules that anybody
can read below: whether it is Socrates who speaks, whether he asks something back, whether he
is brief, and whether the text is clean.

    python -m bench.persona                 the questions that were kept apart for reporting
    python -m bench.persona --set tuning    those by which the persona was written
    python -m bench.persona --show          and every answer

The rules are crude: a lecture in the first person passes. Read some answers, too.
"""

import argparse
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.card import machine_card
from bench.report import finish, print_card
from bench.subject import measured_options, measured_settings
from server.model.conversation import Conversation
from server.model.engine import Engine
from server.model.persona import Persona, find_persona, load_persona
from server.model.progress import Progress
from server.model.sampler import Sampling

_QUESTIONS = Path(__file__).with_name("questions.toml")
# What the program had that this one replaces.
_ONE_LINE = Persona("You are Socrates. Keep your answers short.", ())
_MOST_WORDS = 80
_OURS, _THEIRS = "ours", "one line"

_FIRST_PERSON = re.compile(r"\b(I|I'm|I've|I'll|I'd|my|me|myself)\b")
_MACHINE = re.compile(r"\b(an? AI|as an AI|language model|chatbot|virtual assistant)\b", re.I)
_LECTURE = re.compile(
    r"\bSocrates('s)? (was|is|were|are|has|had|did|does|believed|believes|argued|argues|taught|"
    r"teaches|said|says|thought|thinks|would|held|saw|asked|asks|famously|once|philosophy)\b"
)
# Marks of lists, headings and emphasis; what no tokenizer should leave.
_MARKUP = re.compile(r"[*#`|<>\[\]{}\\_~\ufffd]|^\s*(\d+[.)]|[-\u2022])\s", re.M)
_SENTENCE_END = re.compile(r"[.?!\u2026][\"'\u201d\u2019)]*$")


def speaks_as_socrates(text: str) -> bool:
    """In the first person, no machine, and no lecture about himself."""
    return bool(_FIRST_PERSON.search(text)) and not _MACHINE.search(text) and not (
        _LECTURE.search(text)
    )  # fmt: skip


def asks_back(text: str) -> bool:
    """At least one question."""
    return "?" in text


def is_brief(text: str) -> bool:
    """Under 80 words."""
    return 0 < len(text.split()) < _MOST_WORDS


def is_clean(text: str) -> bool:
    """Plain sentences, and the last one ended."""
    return not _MARKUP.search(text) and bool(_SENTENCE_END.search(text.strip()))


_RULES: dict[str, Callable[[str], bool]] = {
    "speaks as Socrates": speaks_as_socrates,
    "asks something back": asks_back,
    "under 80 words": is_brief,
    "clean text": is_clean,
    "all four": lambda text: all(
        rule(text) for rule in (speaks_as_socrates, asks_back, is_brief, is_clean)
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and who gave it."""

    persona: str
    question: str
    seed: int
    text: str


def main() -> None:
    """Ask everything and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", choices=("report", "tuning"), default="report")
    parser.add_argument("--seeds", type=int, default=3, help="answers a question (default: 3)")
    parser.add_argument("--persona", default="socrates", help="ours: a name, or a path")
    parser.add_argument("--show", action="store_true", help="print every answer of ours")
    options = parser.parse_args()
    questions = tomllib.loads(_QUESTIONS.read_text())[options.set]
    chosen = measured_options()
    settings = measured_settings(chosen)
    card = machine_card(settings.model_file) | {"questions": len(questions), "set": options.set}
    print_card(card)
    sampling = Sampling(chosen.max_tokens, temperature=chosen.temperature)
    personas = {_OURS: load_persona(find_persona(options.persona)), _THEIRS: _ONE_LINE}
    answers: list[Answer] = []
    for name, persona in personas.items():
        engine = Engine.load(replace(settings, persona=persona))
        answers += _ask_all(name, engine, questions, options.seeds, sampling)
    if options.show:
        for answer in answers:
            if answer.persona == _OURS:
                faults = [name for name, rule in _RULES.items() if not rule(answer.text)]
                print(f"\n{answer.question}\n  {answer.text}\n  {', '.join(faults) or 'well'}")
    shares = _report(answers, list(personas))
    samples = [[a.persona, a.question, a.seed, a.text] for a in answers]
    finish("persona", card, {"shares": shares, "answers": samples})


def _ask_all(
    name: str, engine: Engine, questions: Sequence[str], seeds: int, sampling: Sampling
) -> list[Answer]:
    answers = []
    for number, question in enumerate(questions):
        prompt = engine.write_prompt(Conversation(question))
        for seed in range(seeds):
            seeded = replace(sampling, seed=seed)
            pieces = engine.generate(prompt, seeded, threading.Event(), Progress())
            answers.append(Answer(name, question, seed, "".join(pieces).strip()))
        print(f"{name}: {number + 1} of {len(questions)} questions", file=sys.stderr)
    return answers


def _report(answers: Sequence[Answer], names: Sequence[str]) -> dict[str, dict[str, float]]:
    shares = {
        rule_name: {
            name: _share([rule(a.text) for a in answers if a.persona == name]) for name in names
        }
        for rule_name, rule in _RULES.items()
    }
    print(f"\n{'share of answers, %':24}" + "".join(f"{name:>12}" for name in names))
    for rule_name, found in shares.items():
        print(f"{rule_name:24}" + "".join(f"{100 * found[name]:12.0f}" for name in names))
    words = {name: [len(a.text.split()) for a in answers if a.persona == name] for name in names}
    means = {name: sum(counts) / len(counts) for name, counts in words.items()}
    print(f"{'words, mean':24}" + "".join(f"{means[name]:12.0f}" for name in names))
    return shares


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
