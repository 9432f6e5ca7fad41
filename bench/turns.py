"""What does remembering the conversation cost?

Each turn of a talk of eight: how long until the first byte, and how many tokens were prefilled for
it. With memory off, every question is the first. Measured with one person alone, and with three who
take turns: with one context, which each turn takes from the one before, and with three.

    python -m bench.turns
    python -m bench.turns --short     talks of four turns
"""

import json

from bench.kit.client import Address, ask
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import running_server
from bench.kit.subject import measured_model

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


def main() -> None:
    """Measure every way and print card, table and JSON."""
    turns = read_options(__doc__, {"turns": 4}, turns=len(_QUESTIONS)).turns
    report = Report("turns", measured_model())
    ways = {
        "memory off, one person": (1, 1, False),
        "memory on, one person": (1, 1, True),
        "memory off, three people": (1, 3, False),
        "memory on, three people": (1, 3, True),
        "the same, three contexts": (3, 3, True),
    }
    rows = {}
    for name, (contexts, people, remembers) in ways.items():
        with running_server("--contexts", str(contexts)) as (_, address):
            rows[name] = _talk(address, people, turns, remembers)
        note(name)
    for name, found in rows.items():
        print_spreads({f"  turn {n}": ms for n, ms in enumerate(found, 1)}, f"{name}: ms")
    report.finish(first_byte_ms=rows)


# By turn: every person's milliseconds to the first byte.
def _talk(address: Address, people: int, turns: int, remembers: bool) -> list[list[float]]:
    talks: list[list[dict[str, str]]] = [[] for _ in range(people)]
    found = []
    for turn in range(turns):
        times = []
        for person, talk in enumerate(talks):
            # No two people say the same.
            question = f"Friend {person + 1} asks: {_QUESTIONS[turn]}"
            talk.append({"role": "user", "content": question})
            messages = json.dumps({"messages": talk if remembers else talk[-1:]})
            query = f"seed={10 * person + turn}&max_tokens={_ANSWER_TOKENS}"
            timing = ask(address, messages, query, "application/json")
            talk.append({"role": "assistant", "content": timing.text})
            times.append(1000 * timing.first_byte_s)
        found.append(times)
    return found


if __name__ == "__main__":
    main()
