"""Mutates the heads of valid tiny model files, and loads what the inspection lets through.

    python -m tests.tools.mutate DIRECTORY ROUNDS [ENGINE]

Prints how many were refused and how many loaded. Exit status 1 with the mutation if a refusal was
not one sentence, or if loading or the first token ended the process by a signal.
"""

import os
import random
import sys
import threading
from pathlib import Path

from server.model.backends.choice import choose
from server.model.errors import ModelError
from server.model.files.modelfile import CTRANSFORMERS
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation
from server.model.prompt.persona import Persona
from server.model.sampler import Sampling
from tests.support.families import write_family
from tests.support.gguf_model import write_gguf
from tests.support.tiny_model import write_tiny_model

_REFUSED, _LOADED, _UNCLEAR = 0, 1, 2


def main(directory: Path, rounds: int, engine: str = CTRANSFORMERS) -> int:
    """Run the rounds; returns the exit status."""
    files = _whole_files(directory, engine)
    path, counts = directory / "mutated", [0, 0]
    for number in range(rounds):
        draw = random.Random(number)
        whole, head = files[number % len(files)]
        path.write_bytes(_mutate(whole, head, draw))
        outcome = _in_child(path, engine)
        if outcome not in (_REFUSED, _LOADED):
            print(f"mutation {number}: status {outcome}")
            return 1
        counts[outcome] += 1
    print(*counts)
    return 0


# Each with where its tensors' data begins, which may be anything.
def _whole_files(directory: Path, engine: str) -> list[tuple[bytes, int]]:
    path = directory / "whole"
    if engine == CTRANSFORMERS:
        gguf = write_gguf(path).read_bytes()
        ggjt = write_tiny_model(path).read_bytes()
        return [(ggjt, 4000), *[(gguf, gguf.rindex(b"ffn_down.weight") + 100)] * 3]
    wholes = [write_family(path, name).read_bytes() for name in ("llama3", "gemma3", "phi3")]
    return [(whole, whole.rindex(b"ffn_norm.weight") + 100) for whole in wholes]


def _mutate(whole: bytes, head: int, draw: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(head)
        kind = draw.randrange(5)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[at : at + 4] = draw.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")
        elif kind == 3:  # what is elsewhere, so that keys and names come twice
            length, other = draw.choice((8, 32, 64)), draw.randrange(head)
            data[at : at + length] = data[other : other + length]
        else:
            data[at : at + 8] = draw.choice((0, 2**31, 2**63 - 1)).to_bytes(8, "little")
    return bytes(data)


# A signal ends the child alone; its status is then negative.
def _in_child(path: Path, engine: str) -> int:
    child = os.fork()
    if child == 0:
        os._exit(_try(path, engine))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _try(path: Path, engine: str) -> int:
    try:
        choose(path, engine)
        settings = EngineSettings(
            path, Persona("Be."), 256, engine=engine, governor=GovernorSettings(1)
        )
        loaded = load_engine(settings)
        prompt = loaded.write_prompt(Conversation("What is it, friend?"))
        list(loaded.generate(prompt, Sampling(max_tokens=3), threading.Event(), Progress()))
    except ModelError as error:
        is_sentence = str(error).endswith(".") and "\n" not in str(error)
        return _REFUSED if is_sentence else _UNCLEAR
    except Exception as error:
        print(repr(error))
        return _UNCLEAR
    return _LOADED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
