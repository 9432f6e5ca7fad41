"""What does it cost that Socrates remembers the talk?

Each turn of a talk of eight: how long until the first byte, and how many tokens had to be read
for it. With memory off, every question is the first. One person alone, and three who take
turns; these with one context, which each turn takes from the one before, and with three.

    python -m bench.memory
    python -m bench.memory --short     talks of four turns
"""

import argparse
import json
import statistics
import sys

from bench.card import machine_card
from bench.client import Timing, ask, running_server
from bench.report import finish, print_card
from bench.subject import measured_model

_QUESTIONS = (
    "What is virtue?",
    "Why do you say that?",
    "And can it be taught?",
    "Who would be the teacher?",
    "What if there is none?",
    "How would we know him?",
    "Have you ever met one?",
    "What should I do, then?",
)
_ANSWER_TOKENS = 40

Address = tuple[str, int]
Turns = list[list[float]]  # by turn: every person's milliseconds to the first byte


def main() -> None:
    """Measure every way and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="talks of four turns")
    turns = 4 if parser.parse_args().short else len(_QUESTIONS)
    card = machine_card(measured_model())
    print_card(card)
    ways = {
        "memory off, one person": (1, 1, False),
        "memory on, one person": (1, 1, True),
        "memory off, three people": (1, 3, False),
        "memory on, three people": (1, 3, True),
        "the same, three contexts": (3, 3, True),
    }
    rows = {}
    for name, (contexts, people, remembers) in ways.items():
        with running_server("--contexts", str(contexts)) as address:
            rows[name] = _talk(address, people, turns, remembers)
        print(name, file=sys.stderr)
    print(f"{'ms to the first byte of turn':30}" + "".join(f"{n + 1:8}" for n in range(turns)))
    for name, found in rows.items():
        print(f"{name:30}" + "".join(f"{statistics.median(turn):8.0f}" for turn in found))
    finish("memory", card, {"first_byte_ms": rows})


def _talk(address: Address, people: int, turns: int, remembers: bool) -> Turns:
    talks: list[list[dict[str, str]]] = [[] for _ in range(people)]
    found: Turns = []
    for turn in range(turns):
        times = []
        for person, talk in enumerate(talks):
            # No two people say the same.
            question = f"Friend {person + 1} asks: {_QUESTIONS[turn]}"
            talk.append({"role": "user", "content": question})
            timing = _ask(address, talk if remembers else talk[-1:], 10 * person + turn)
            talk.append({"role": "assistant", "content": timing.text})
            times.append(1000 * timing.first_byte_s)
        found.append(times)
    return found


def _ask(address: Address, messages: list[dict[str, str]], seed: int) -> Timing:
    query = f"seed={seed}&max_tokens={_ANSWER_TOKENS}"
    return ask(address, json.dumps({"messages": messages}), query, "application/json")


if __name__ == "__main__":
    main()
