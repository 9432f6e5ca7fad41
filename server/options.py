"""Every option, limit, timeout and default, with its unit and its reason.

Owns `Options`: one frozen value, made once from the command line and the environment, and
handed down. Each field below is a flag (`--max-tokens`) and a variable
(`SOCRATES_MAX_TOKENS`); the flag wins. A bad value ends the process with exit status 2
and one line.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NoReturn

from server import __version__
from server.api.access import DEFAULT_PORTS
from server.bounds import TEMPERATURE, N, Real, Whole
from server.model.files.modelfile import ANY_ENGINE, ENGINES

Network = IPv4Network | IPv6Network

_PREFIX = "SOCRATES_"


def _whole(least: int, most: int) -> Callable[[str], int]:
    return Whole(least, most).parse


def _real(least: float, most: float) -> Callable[[str], float]:
    return Real(least, most).parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


# The word stands for None.
def _word_or(word: str, parse: Callable[[str], N]) -> Callable[[str], N | None]:
    def parse_either(text: str) -> N | None:
        if text == word:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"must be {word}, or {str(error).removeprefix('must be ')}") from None

    return parse_either


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse addresses and networks (10.0.0.0/8), separated by commas.

    Raises:
        ValueError: if one of them is neither.
    """
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError:
        raise ValueError("must be addresses or networks, such as 10.0.0.0/8,::1") from None


# As a browser writes them (RFC 6454 section 6.2): anything else would never match.
_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ORIGIN = re.compile(
    rf"[a-z][a-z0-9+.-]*://(?:({_NAME})|\[([0-9a-f:.]+)\])(?::([1-9][0-9]{{0,4}}))?"
)
_MOST_PORT = 65535


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    for origin in origins:
        if origin not in ("*", "null") and not _is_origin(origin):
            raise ValueError(
                "must be *, or origins as browsers write them, such as https://app.example:8443: "
                "lower case, no default port, no path"
            )
    return origins


def _is_origin(text: str) -> bool:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return False
    name, ipv6, port = match.groups()
    address = ipv6 or (name if name.rpartition(".")[2][:1].isdigit() else None)
    try:
        if address and str(ip_address(address)) != address:
            return False
    except ValueError:
        return False
    is_default = port == DEFAULT_PORTS.get(text.partition("://")[0], "")
    return not is_default and int(port or 0) <= _MOST_PORT


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower().removesuffix(".") for part in text.split(","))
    if not all(re.fullmatch(rf"\*|{_NAME}", name) for name in names):
        raise ValueError("must be * or host names without port, such as pi.example")
    return names


# RFC 6750 section 2.1 allows fewer characters; these are all that a header field carries safely.
def _key(text: str) -> str:
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("must be visible ASCII characters without spaces")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().removeprefix("[").removesuffix("]") for part in text.split(","))
    if not all(hosts):
        raise ValueError("must be addresses, such as 127.0.0.1,::1")
    return hosts


def _text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


# `shown` is what --help shows for a default whose own text says nothing, such as None.
def _option(
    default: Any, parse: Callable[[str], Any], description: str, shown: str | None = None
) -> Any:
    shown = str(default) if shown is None else shown
    metadata = {"parse": parse, "description": f"{description} (default: {shown})"}
    return field(default=default, metadata=metadata)


_SECONDS = _real(0.05, 86400)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings that can be chosen when the server starts."""

    # where
    host: tuple[str, ...] = _option(
        ("127.0.0.1",),
        _hosts,
        "addresses to listen on, separated by commas; 0.0.0.0,:: for all interfaces",
        "127.0.0.1",
    )
    port: int = _option(8080, _whole(0, 65535), "port to listen on; 0 picks a free one")
    # the model
    model: str = _option(
        "socrates", _text, "a model's name, hf:OWNER/REPOSITORY/FILE.gguf, or a path to a file"
    )
    engine: str = _option(
        ANY_ENGINE,
        _one_of(*ENGINES),
        "what runs the model: auto is ctransformers if it can, else llama.cpp",
    )
    template: str = _option(
        "auto", _text, "chat template: auto is the model file's own; llama-2, or a Jinja file"
    )
    persona: str | None = _option(
        None,
        _text,
        "who speaks, and the fixed openings for emergencies: a name, or the path of a TOML file",
        "the model's own Socrates",
    )
    threads: int | None = _option(
        None,
        _word_or("auto", _whole(1, 256)),
        "threads for the model; auto finds the fastest count",
        "auto",
    )
    # A Pi's firmware throttles the CPU from 80 C on; 75 stays clear of that.
    max_celsius: float | None = _option(
        None, _real(30, 110), "CPU temperature limit in degrees Celsius", "off"
    )
    context: int = _option(2048, _whole(256, 131072), "context length in tokens")
    contexts: int = _option(
        1, _whole(1, 64), "conversations whose KV cache is kept, one cache each"
    )
    # one answer
    max_tokens: int = _option(500, _whole(1, 131072), "maximum tokens in one answer")
    temperature: float | None = _option(
        None,
        TEMPERATURE.parse,
        "sampling temperature: 0 always picks the likeliest token, 2 is wild",
        "the model's own, 0.3 or 0.6",
    )
    # who waits
    # Queued prompts cost nothing, but nobody waits for the seventeenth answer.
    queue: int = _option(16, _whole(1, 10000), "maximum prompts waiting for the model")
    per_client: int = _option(2, _whole(1, 10000), "maximum of these from one client address")
    # who may ask
    trusted_proxy: tuple[Network, ...] = _option(
        (),
        parse_networks,
        "addresses and networks of proxies whose X-Forwarded-For is trusted",
        "none",
    )
    api_key: str | None = _option(
        None, _key, "key required as Authorization: Bearer KEY; better set as a variable", "none"
    )
    cors_origin: tuple[str, ...] = _option(
        (), _origins, "origins whose pages may call the API, or *", "none"
    )
    allowed_hosts: tuple[str, ...] | None = _option(
        None,
        _names,
        "names to answer to beside localhost and *.local, or *",
        "checked on loopback only",
    )
    # one request
    # 16 KiB is far more text than a context of 2,048 tokens holds, in any language.
    max_body: int = _option(16 * 1024, _whole(1, 2**30), "maximum bytes in a prompt or a message")
    # Enough for a conversation of a hundred turns.
    max_json_body: int = _option(256 * 1024, _whole(1, 2**30), "maximum bytes in a JSON body")
    # What other servers accept: nginx 8 KiB per line, Apache 8 KiB and 100 lines, Node 16 KiB.
    max_request_line: int = _option(8 * 1024, _whole(16, 2**20), "maximum bytes in a request line")
    max_header: int = _option(16 * 1024, _whole(16, 2**20), "maximum bytes in a request header")
    max_header_lines: int = _option(100, _whole(1, 10000), "maximum lines in a request header")
    connections: int = _option(512, _whole(1, 10**6), "maximum open connections")
    header_timeout: float = _option(10.0, _SECONDS, "seconds for a header to arrive")
    body_timeout: float = _option(20.0, _SECONDS, "seconds for a body to arrive")
    # Longer than proxies keep theirs (Caddy 120 s, nginx 60 s), or they would send a request into a
    # connection that is closing. Idle ones cost nothing: at the limit they give way.
    idle_timeout: float = _option(150.0, _SECONDS, "seconds a connection may stay idle")
    stalled_timeout: float = _option(30.0, _SECONDS, "seconds a client may read nothing")
    # Linux: TCP_USER_TIMEOUT and keep-alive probes. Elsewhere the system's own defaults.
    vanished_timeout: float = _option(15.0, _real(1, 86400), "seconds a client may be unreachable")
    # Those who wait give up after a minute (nginx, load balancers) or five (Node's fetch).
    ping_interval: float | None = _option(
        10.0,
        _word_or("off", _SECONDS),
        "seconds until a stream that waits for the model gets a sign of life; off sends none, so "
        "that a proxy can ask another server",
        "10",
    )
    shutdown_timeout: float = _option(5.0, _real(1, 3600), "seconds for an orderly shutdown")
    log_level: str = _option(
        "info", _one_of("debug", "info", "warning", "error"), "lowest severity that is logged"
    )
    log_format: str = _option("text", _one_of("text", "json"), "format of log lines")


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Parse the options from the command line and the environment.

    Exits with status 2 and one line on stderr if a value is bad, and with 0 after --help.
    """
    parser = _Parser(
        prog="python -m server",
        description="Talk with Socrates: serves a web page and a language model.",
        epilog=f"Every option is also an environment variable, such as {_PREFIX}MAX_TOKENS=200.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    for option in fields(Options):
        description = option.metadata["description"]
        parser.add_argument(_flag(option), dest=option.name, metavar="VALUE", help=description)
    flags = vars(parser.parse_args(arguments))
    chosen: dict[str, Any] = {}
    for option in fields(Options):
        source, text = _flag(option), flags[option.name]
        if text is None:
            source = _PREFIX + option.name.upper()
            text = environment.get(source)
        if text is not None:
            chosen[option.name] = _parse(option, source, text, parser)
    return Options(**chosen)


class _Parser(argparse.ArgumentParser):
    # argparse prints the whole usage in front of the one line that matters.
    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)


def _flag(option: Field[Any]) -> str:
    return "--" + option.name.replace("_", "-")


def _parse(option: Field[Any], source: str, text: str, parser: _Parser) -> Any:
    try:
        return option.metadata["parse"](text)
    except ValueError as error:
        parser.error(f"{source} {error}, not {text!r}")


def main_options() -> Options:
    """Parse the options of this process."""
    return parse_options(sys.argv[1:], os.environ)
