"""Builds the parts of a server from the options: engine settings, routes, limits."""

import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from server.api.access import Access
from server.api.completions import Completions
from server.api.messages import ChatLimits
from server.api.metrics import Metrics
from server.api.monitoring import Monitoring
from server.api.prompt import Prompts
from server.api.reply import Replies
from server.api.routes import Routes
from server.http.assets import load_assets
from server.http.deadline import Loop
from server.http.request import ParserLimits
from server.http.state import ConnectionLimits
from server.model.backends.choice import choose
from server.model.errors import ModelFileError
from server.model.files import catalog
from server.model.files.footprint import available_memory, check_fits
from server.model.loader import EngineSettings
from server.model.machine.governor import GovernorSettings
from server.model.machine.thermometer import Thermometer
from server.model.prompt.persona import find_persona, load_persona
from server.model.prompt.templates import find_template
from server.model.worker import Worker
from server.options import Options

_CLIENT_DIRECTORY = Path(__file__).resolve().parents[1] / "client"


log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start; `str(error)` is one sentence. Exit status 1."""


def engine_settings(options: Options) -> EngineSettings:
    """Build the engine's settings from the options and the catalogue.

    Raises:
        ModelFileError: if there is no such model file, or it cannot be used.
        StartError: if there is a temperature limit but no temperature to read.
    """
    model = catalog.find(options.model)
    if isinstance(model, catalog.CatalogModel):
        path = model.path
        if not model.is_fetched:
            command = f"python -m server.model.fetch {options.model}"
            raise ModelFileError(
                f"The model {model.name} has not been fetched yet: run `{command}`."
            )
    else:
        path = model
    # The loader checks again; here a bad file is refused before the listener opens.
    file = choose(path, options.engine)
    check_fits(file, options.context, options.contexts, available_memory())
    find_template(file, options.template)
    if file.trained_context and options.context > file.trained_context:
        log.warning(
            "a context of %d tokens is longer than the %d that the model was trained on: "
            "beyond them its answers lose their sense",
            options.context,
            file.trained_context,
        )
    own = model.persona if isinstance(model, catalog.CatalogModel) else catalog.DEFAULT_PERSONA
    persona = load_persona(find_persona(options.persona or own))
    governor = _governor_settings(options)
    return EngineSettings(
        path,
        persona,
        options.context,
        options.template,
        options.contexts,
        file.engine,
        governor,
    )


def sampling_temperature(options: Options) -> float:
    """The temperature from the options, or else the model's own."""
    if options.temperature is not None:
        return options.temperature
    model = catalog.find(options.model)
    if isinstance(model, catalog.CatalogModel):
        return model.temperature
    return catalog.DEFAULT_TEMPERATURE


def _governor_settings(options: Options) -> GovernorSettings:
    thermometer = Thermometer()
    if options.max_celsius is not None and thermometer.celsius() is None:
        raise StartError(
            "This machine reports no temperature (there is no thermal zone under "
            "/sys/class/thermal): leave --max-celsius out."
        )
    return GovernorSettings(options.threads, options.max_celsius, thermometer)


def model_name(options: Options) -> str:
    """What /status and the API call the model."""
    model = catalog.find(options.model)
    return model.name if isinstance(model, catalog.CatalogModel) else model.stem


def connection_limits(options: Options) -> ConnectionLimits:
    """The limits of every connection."""
    return ConnectionLimits(
        header_timeout_s=options.header_timeout,
        body_timeout_s=options.body_timeout,
        idle_timeout_s=options.idle_timeout,
        stalled_timeout_s=options.stalled_timeout,
        vanished_timeout_s=options.vanished_timeout,
        connections=options.connections,
        parser=ParserLimits(
            request_line_bytes=options.max_request_line,
            header_bytes=options.max_header,
            header_count=options.max_header_lines,
        ),
    )


# Who listens on this machine only, and behind no proxy, is asked by its own name; elsewhere any
# name may be right.
def _allowed_hosts(options: Options) -> tuple[str, ...] | None:
    if options.allowed_hosts is not None:
        return options.allowed_hosts
    is_behind_proxy = bool(options.trusted_proxy)
    return () if listens_on_loopback(options.host) and not is_behind_proxy else None


def listens_on_loopback(hosts: Sequence[str]) -> bool:
    """Whether all addresses or names to listen on are reached from this machine only."""
    try:
        found = [info[4][0] for host in hosts for info in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):  # the listener will say so
        return False
    return all(ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def assemble_routes(
    options: Options,
    loop: Loop,
    worker: Worker,
    metrics: Metrics,
    model_name: str,
    count_connections: Callable[[], int],
) -> Routes:
    """Build the application: every path with its handler."""
    access = Access(options.api_key, options.cors_origin, _allowed_hosts(options))
    limits = ChatLimits(options.max_body, options.max_tokens, sampling_temperature(options))
    replies = Replies(worker, loop, metrics.observe_refusal, options.ping_interval)
    return Routes(
        load_assets(_CLIENT_DIRECTORY),
        Monitoring(worker, metrics, model_name, count_connections),
        Prompts(replies, limits, options.max_json_body),
        Completions(replies, limits, options.max_json_body, model_name),
        access,
        model_name,
        options.max_body,
    )
