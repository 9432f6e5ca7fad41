"""Is he Socrates, and does the talk make sense? Our default model next to what it was made from.

Three subjects answer the same messages with the same seeds: the trained model `socrates`; its
base `smollm2` with the few-shot persona, which was the default before; and `smollm2` with one line
that says who he is. Single questions show the manner, scripted talks of 4 to 6 turns what becomes
of it, memory probes what he was told, and messages of people in danger whether help comes first.
None of these messages was trained on. The rules are in `rules.py`; they are crude, so read the
talks, too: ten are printed, chosen by a seed.

    python -m bench.character                     what is reported
    python -m bench.character --set tuning        for choosing settings: other questions and talks
    python -m bench.character --only socrates --temperature 0.4
"""

import argparse
import random
import re
import statistics
import sys
import threading
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.card import machine_card
from bench.report import finish, print_card
from bench.rules import RULES, helps
from bench.subject import measured_options, measured_settings
from server.model.engine import Engine
from server.model.files.catalog import CATALOG
from server.model.job import Progress
from server.model.loader import load_engine
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.sampler import Sampling

_HERE = Path(__file__).parent
_ONE_LINE = Persona("You are Socrates. Keep your answers short.")
_SUBJECTS = ("socrates", "few-shot", "one line")
_SHOWN_TALKS = 10
_MOST_TOKENS = 200  # of an answer: what is longer has failed to be brief anyway

Talk = list[Turn]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with a persona, ready to answer."""

    name: str
    engine: Engine
    sampling: Sampling

    def answer(self, message: str, before: Sequence[Turn], seed: int) -> str:
        """The answer to `message`."""
        prompt = self.engine.write_prompt(Conversation(message, tuple(before)))
        sampling = replace(self.sampling, seed=seed)
        pieces = self.engine.generate(prompt, sampling, threading.Event(), Progress())
        return "".join(pieces).strip()

    def talk(self, messages: Sequence[str], seed: int) -> Talk:
        """The whole talk that follows from a visitor's `messages`."""
        talk: Talk = []
        for turn, message in enumerate(messages):
            answer = self.answer(message, talk, 1000 * seed + turn)
            talk.append(Turn(message, answer or "..."))
        return talk


@dataclass(slots=True)
class Findings:
    """All that one subject said."""

    singles: list[Talk]
    talks: list[Talk]
    memory: list[tuple[Talk, str]]  # with what the last answer should contain
    danger: list[Talk]
    harmless: list[Talk]


def main() -> None:
    """Ask everything of every subject; print card, table, ten talks and JSON."""
    options = _parser().parse_args()
    questions = tomllib.loads((_HERE / "questions.toml").read_text())[options.set]
    scripts = tomllib.loads((_HERE / "talks.toml").read_text())
    messages = tomllib.loads((_HERE / "danger.toml").read_text())
    found: dict[str, Findings] = {}
    card: dict[str, Any] = {}
    for name in _SUBJECTS if options.only is None else (options.only,):
        subject, file = _load(name, options)
        card = card or machine_card(file) | {"set": options.set, "seed": options.seed}
        found[name] = _ask_all(subject, questions, scripts, messages, options)
    print_card(card)
    shares = {name: _shares(findings) for name, findings in found.items()}
    _print_table(shares)
    shown = random.Random(options.seed).sample(range(len(scripts[options.set])), _SHOWN_TALKS)
    for index in shown:
        print(f"\nTalk {index}")
        _print_talk(next(iter(found.values())).talks[index])
    talks = {
        name: [[[turn.question, turn.answer] for turn in talk] for talk in findings.talks]
        for name, findings in found.items()
    }
    finish("character", card, {"shares": shares, "talks": talks})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", choices=("report", "tuning"), default="report")
    parser.add_argument("--only", choices=_SUBJECTS, help="one subject instead of all")
    parser.add_argument("--seed", type=int, default=1, help="of all draws (default: 1)")
    parser.add_argument("--temperature", type=float, help="instead of each model's own")
    parser.add_argument("--dry", type=float, help="DRY multiplier, instead of the default")
    return parser


def _load(name: str, options: argparse.Namespace) -> tuple[Subject, Path]:
    model = CATALOG["socrates" if name == "socrates" else "smollm2"]
    settings = measured_settings(replace(measured_options(), model=model.name))
    if name == "one line":
        settings = replace(settings, persona=_ONE_LINE)
    temperature = model.temperature if options.temperature is None else options.temperature
    sampling = Sampling(_MOST_TOKENS, temperature=temperature)
    if options.dry is not None:
        sampling = replace(sampling, dry_multiplier=options.dry)
    return Subject(name, load_engine(settings), sampling), settings.model_file


def _ask_all(
    subject: Subject,
    questions: Sequence[str],
    scripts: dict[str, Any],
    messages: dict[str, list[str]],
    options: argparse.Namespace,
) -> Findings:
    def talks(kind: str, all_messages: Sequence[Sequence[str]]) -> list[Talk]:
        done = []
        for number, one in enumerate(all_messages):
            done.append(subject.talk(one, 100 * options.seed + number))
            print(f"{subject.name}: {kind} {number + 1}/{len(all_messages)}", file=sys.stderr)
        return done

    probes = scripts["memory"]
    remembered = talks("memory", [probe["turns"] for probe in probes])
    return Findings(
        singles=talks("questions", [[question] for question in questions]),
        talks=talks("talks", scripts[options.set]),
        memory=[(talk, p["expects"]) for talk, p in zip(remembered, probes, strict=True)],
        danger=talks("danger", [[message] for message in messages["danger"]]),
        harmless=talks("harmless", [[message] for message in messages["harmless"]]),
    )


# In percent.
def _shares(findings: Findings) -> dict[str, float]:
    shares = {}
    for name, rule in RULES.items():
        verdicts: list[bool | None] = []
        for talk in [*findings.singles, *findings.talks]:
            for index, turn in enumerate(talk):
                before = [earlier.answer for earlier in talk[:index]]
                verdicts.append(rule(turn.question, turn.answer, before))
        shares[name] = _share([verdict for verdict in verdicts if verdict is not None])
    shares["remembers"] = _share(
        [bool(re.search(e, talk[-1].answer, re.I)) for talk, e in findings.memory]
    )
    shares["help in danger"] = _share([helps(talk[0].answer) for talk in findings.danger])
    shares["false alarms"] = _share([helps(talk[0].answer) for talk in findings.harmless])
    answers = [turn.answer for talk in findings.talks for turn in talk]
    shares["words, mean"] = statistics.mean(len(answer.split()) for answer in answers)
    return shares


def _share(verdicts: Sequence[bool]) -> float:
    return 100 * sum(verdicts) / len(verdicts)


def _print_table(shares: dict[str, dict[str, float]]) -> None:
    print(f"{'share of answers, %':22}" + "".join(f"{name:>12}" for name in shares))
    for row in next(iter(shares.values())):
        print(f"{row:22}" + "".join(f"{found[row]:12.1f}" for found in shares.values()))


def _print_talk(talk: Talk) -> None:
    for turn in talk:
        print(f"  > {turn.question}\n  {turn.answer}")


if __name__ == "__main__":
    main()
