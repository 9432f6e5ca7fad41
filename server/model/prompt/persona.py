"""Persona files: a character's system text, examples of its conversation, fixed openings."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.model.errors import ModelFileError
from server.model.prompt.conversation import Turn
from server.model.prompt.openings import BadPattern, Openings, read_openings, read_text

_PERSONAS = Path(__file__).parents[1] / "personas"


@dataclass(frozen=True, slots=True)
class Persona:
    """A character: its system text, examples of its conversation, fixed openings."""

    system: str
    examples: tuple[Turn, ...] = ()
    openings: Openings = field(default_factory=Openings)


def find_persona(name: str) -> Path:
    """Find the file of a shipped persona; any other `name` is a path.

    Raises:
        ModelFileError: if it is neither.
    """
    ours = {path.stem: path for path in sorted(_PERSONAS.glob("*.toml"))}
    path = ours.get(name, Path(name).expanduser())
    try:
        path.stat()  # `exists` lets some errors through, such as a name that is too long
    except OSError:
        raise ModelFileError(
            f"There is no persona {name}: use {', '.join(ours)}, or the path of a TOML file."
        ) from None
    return path


def load_persona(path: Path) -> Persona:
    """Read a persona file (TOML).

    It has a string `system`, any number of `[[examples]]`, and any number of `[[openings]]` or, as
    a string `openings`, the name of a file that has them, relative to the persona's folder.

    Raises:
        ModelFileError: if the file cannot be read, or is not a persona.
    """
    table = _read_table(path)
    try:
        examples = [
            Turn(read_text(row["user"]), read_text(row["answer"]))
            for row in table.get("examples", [])
        ]
        return Persona(
            read_text(table["system"]), tuple(examples), _find_openings(table, path.parent)
        )
    except (KeyError, TypeError, AttributeError):
        raise ModelFileError(
            f"The persona {path} needs a string `system`, the strings `user` and `answer` in each "
            "of its [[examples]], and the lists of strings `patterns` and `texts` in each of its "
            "[[openings]]."
        ) from None
    except BadPattern as error:
        raise ModelFileError(
            f"The persona {path} has a pattern that is not a valid regular expression: {error}."
        ) from error


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"The persona {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deeply
        raise ModelFileError(f"The persona {path} is not TOML: {error}.") from error


def _find_openings(table: dict[str, Any], folder: Path) -> Openings:
    name = table.get("openings")
    return read_openings(_read_table(folder / name) if isinstance(name, str) else table)
