"""`python -m server.model.tuning`: train the adapter of the default model (`make train`).

Owns the command line, the progress on stderr and the files. An interrupted run resumes from its
last checkpoint when the same command is run again.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

from server.model.files import catalog
from server.model.files.adapter import write_adapter
from server.model.files.catalog import TOKENIZER_FILE
from server.model.prompt.persona import find_persona, load_persona
from server.model.tuning.dialogue import LAST_TALKS, TALKS, Encoder, TalkError, read_talks
from server.model.tuning.network import Network, UnsupportedModelError
from server.model.tuning.trainer import Recipe, Report, Trainer

_PERSONA = "socrates-trained"
_DESCRIPTION = "Socrates of Athens: low-rank corrections to SmolLM2, trained on hand-written talks"


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = _parser().parse_args(arguments)
    fields = [field.name for field in dataclasses.fields(Recipe)]
    recipe = Recipe(**{name: getattr(options, name) for name in fields})
    try:
        _train(options, recipe)
    except (TalkError, UnsupportedModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to continue.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server.model.tuning", description="Train Socrates' adapter."
    )
    parser.add_argument(
        "--base", default="smollm2", help="a fetched model's name, or the path of a model file"
    )
    parser.add_argument("--talks", type=Path, default=TALKS, help="a folder of talks")
    parser.add_argument("--out", type=Path, default=catalog.ADAPTER, help="the adapter to write")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("training.pt"),
        help="where progress is saved, and resumed from",
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads for PyTorch"
    )
    for field in dataclasses.fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        kind = type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help=f"({field.default})")
    return parser


def _train(options: argparse.Namespace, recipe: Recipe) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(recipe.seed)
    found = catalog.find(options.base)
    base = found.path if isinstance(found, catalog.CatalogModel) else found
    encoder = Encoder(base.parent / TOKENIZER_FILE, load_persona(find_persona(_PERSONA)).system)
    first, last = (
        [encoder.encode(talk) for talk in read_talks(folder)]
        for folder in (options.talks, options.talks / LAST_TALKS.name)
    )
    network = Network(base, recipe.rank, recipe.gain, recipe.frozen_layers)
    trainer = Trainer(network, first, last, recipe, options.checkpoint)
    losses = trainer.held_out_losses()
    for name, course, tokens, loss in zip(
        ("First", "Last"), (first, last), trainer.tokens, losses, strict=True
    ):
        _say(f"{name}: {len(course):,} talks, {tokens:,} tokens, held-out loss {loss:.3f}")
    started = time.perf_counter()
    trainer.run(_show)
    write_adapter(options.out, network.corrections(), _DESCRIPTION)
    options.checkpoint.unlink(missing_ok=True)
    _say(f"wrote {options.out} after {(time.perf_counter() - started) / 60:.0f} minutes")


def _show(report: Report) -> None:
    left_s = (report.steps - report.step) * report.seconds_a_step
    held_out = report.held_out_loss
    _say(
        f"step {report.step}/{report.steps}  loss {report.loss:.3f}  "
        f"{report.tokens_per_s:.0f} tokens/s  {left_s / 60:.0f} minutes left"
        + ("" if held_out is None else f"  held-out loss {held_out:.3f}")
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
