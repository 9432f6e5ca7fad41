"""What is measured: the model that the SOCRATES_ variables choose, as they do for the server.

So the image's own model is measured in the image, and the default one elsewhere.
"""

import os
from pathlib import Path

from server.assembly import StartError, engine_settings
from server.model.errors import ModelFileError
from server.model.loader import EngineSettings
from server.options import Options, parse_options


def measured_options() -> Options:
    """The options from the environment."""
    return parse_options([], os.environ)


def measured_model() -> Path:
    """The model's file. Raises SystemExit if it cannot be used."""
    return measured_settings(measured_options()).model_file


def measured_settings(options: Options) -> EngineSettings:
    """Return the engine settings for these options; raises SystemExit if they cannot be used."""
    try:
        return engine_settings(options)
    except (ModelFileError, StartError) as error:
        raise SystemExit(f"error: {error}") from error
