"""Does he stay Socrates, and does the conversation make sense? Our default model and its base.

Three subjects answer the same messages with the same seeds: the trained model; its base `smollm2`
with the few-shot persona, the previous default; and `smollm2` with one line that says who he is.
Single questions, scripted talks of 4 to 6 turns, memory probes, messages of people in danger; none
was trained on. The rules (rules.py) are crude, so read the talks, too: a seed chooses ten.

    python -m bench.character
    python -m bench.character --set tuning        for choosing settings: other questions and talks
    python -m bench.character --only socrates --temperature 0.4
"""

import argparse
import random
import re
import statistics
import threading
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.kit.report import Report, note
from bench.kit.subject import measured_model, measured_options, measured_settings
from bench.rules import RULES, helps
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
_MOST_TOKENS = 200  # of an answer: a longer one fails the rule of brevity anyway

Talk = list[Turn]
Said = dict[str, list[Talk]]  # by kind of talk


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with a persona, ready to answer."""

    engine: Engine
    sampling: Sampling

    def talk(self, messages: Sequence[str], seed: int) -> Talk:
        """The whole talk that follows from a visitor's `messages`."""
        talk: Talk = []
        for turn, message in enumerate(messages):
            prompt = self.engine.write_prompt(Conversation(message, tuple(talk)))
            sampling = replace(self.sampling, seed=1000 * seed + turn)
            pieces = self.engine.generate(prompt, sampling, threading.Event(), Progress())
            talk.append(Turn(message, "".join(pieces).strip() or "..."))
        return talk


def main() -> None:
    """Ask everything of every subject; print card, table, ten talks and JSON."""
    options = _parser().parse_args()
    probes = tomllib.loads((_HERE / "talks.toml").read_text())["memory"]
    messages = _messages(options.set, probes)
    said: dict[str, Said] = {}
    report = Report("character", measured_model(), set=options.set, seed=options.seed)
    for name in _SUBJECTS if options.only is None else (options.only,):
        subject = _load(name, options)
        said[name] = {kind: [] for kind in messages}
        for kind, scripts in messages.items():
            for number, script in enumerate(scripts):
                said[name][kind].append(subject.talk(script, 100 * options.seed + number))
                note(f"{name}: {kind} {number + 1}/{len(scripts)}")
    shares = {
        name: _shares(talks, [probe["expects"] for probe in probes]) for name, talks in said.items()
    }
    print(f"{'share of answers, %':22}" + "".join(f"{name:>12}" for name in shares))
    for row in next(iter(shares.values())):
        print(f"{row:22}" + "".join(f"{found[row]:12.1f}" for found in shares.values()))
    first = next(iter(said.values()))["talks"]
    for index in random.Random(options.seed).sample(range(len(first)), _SHOWN_TALKS):
        print(f"\nTalk {index}")
        for turn in first[index]:
            print(f"  > {turn.question}\n  {turn.answer}")
    report.finish(shares=shares, talks={name: _plain(said[name]["talks"]) for name in said})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", choices=("report", "tuning"), default="report")
    parser.add_argument("--only", choices=_SUBJECTS, help="one subject instead of all")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--temperature", type=float, help="instead of each model's own")
    parser.add_argument("--dry", type=float, help="DRY multiplier, instead of the default")
    return parser


# What visitors say, by kind of talk.
def _messages(which: str, probes: Sequence[dict[str, Any]]) -> dict[str, list[list[str]]]:
    questions, talks, danger = (
        tomllib.loads((_HERE / f"{name}.toml").read_text())
        for name in ("questions", "talks", "danger")
    )
    return {
        "questions": [[question] for question in questions[which]],
        "talks": talks[which],
        "memory": [probe["turns"] for probe in probes],
        "danger": [[message] for message in danger["danger"]],
        "harmless": [[message] for message in danger["harmless"]],
    }


def _load(name: str, options: argparse.Namespace) -> Subject:
    model = CATALOG["socrates" if name == "socrates" else "smollm2"]
    settings = measured_settings(replace(measured_options(), model=model.name))
    if name == "one line":
        settings = replace(settings, persona=_ONE_LINE)
    temperature = model.temperature if options.temperature is None else options.temperature
    sampling = Sampling(_MOST_TOKENS, temperature=temperature)
    if options.dry is not None:
        sampling = replace(sampling, dry_multiplier=options.dry)
    return Subject(load_engine(settings), sampling)


# In percent.
def _shares(said: Said, expected: Sequence[str]) -> dict[str, float]:
    passes: dict[str, list[bool]] = {}
    for name, rule in RULES.items():
        verdicts = [rule(*turn) for turn in _turns([*said["questions"], *said["talks"]])]
        passes[name] = [verdict for verdict in verdicts if verdict is not None]
    passes["remembers"] = [
        bool(re.search(expects, talk[-1].answer, re.I))
        for talk, expects in zip(said["memory"], expected, strict=True)
    ]
    passes["help in danger"] = [helps(talk[0].answer) for talk in said["danger"]]
    passes["false alarms"] = [helps(talk[0].answer) for talk in said["harmless"]]
    shares = {name: 100 * statistics.mean(verdicts) for name, verdicts in passes.items()}
    answers = [answer for _, answer, _ in _turns(said["talks"])]
    return shares | {"words, mean": statistics.mean(len(answer.split()) for answer in answers)}


def _plain(talks: Sequence[Talk]) -> list[list[tuple[str, str]]]:
    return [[(turn.question, turn.answer) for turn in talk] for talk in talks]


# Every message, its answer, and the answers before it in the talk.
def _turns(talks: Sequence[Talk]) -> Iterator[tuple[str, str, list[str]]]:
    for talk in talks:
        for index, turn in enumerate(talk):
            yield turn.question, turn.answer, [earlier.answer for earlier in talk[:index]]


if __name__ == "__main__":
    main()
