"""From start to exit: the listener, the signals, the connections, the ordered shutdown.

Owns the process's parts and their order. The listener opens at once and the model loads
behind it; SIGTERM or SIGINT ends it in this order: stop accepting, refuse what waits,
let the running answer finish or cancel it, close the connections, exit 0.
"""

import asyncio
import logging
import resource
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from server.api.access import Access
from server.api.clients import ClientAddresses
from server.api.completions import Completions
from server.api.messages import ChatLimits
from server.api.metrics import Metrics
from server.api.monitoring import Status
from server.api.prompt import Prompts
from server.api.reply import Asking
from server.api.routes import Routes
from server.http.assets import load_assets
from server.http.connection import Connection
from server.http.request import ParserLimits
from server.http.state import ConnectionLimits, Shared
from server.logs import RequestLog
from server.model.errors import ModelFileError
from server.model.files import catalog, modelfile
from server.model.files.footprint import check_fits, memory_to_be_had
from server.model.loader import AUTO_TEMPLATE, EngineSettings, load_engine
from server.model.machine.governor import EffortSettings
from server.model.machine.thermometer import Thermometer
from server.model.prompt.persona import find_persona, load_persona
from server.model.worker import LoadEngine, Worker
from server.options import Options

log = logging.getLogger(__name__)

_CLIENT_DIRECTORY = Path(__file__).resolve().parents[1] / "client"
_BACKLOG = 1024
_KEEP_ALIVE_PROBES = 3
# The share of the shutdown's time in which a running answer may still end by itself.
_GRACE_SHARE = 0.6
_POLL_S = 0.01
_LAG_INTERVAL_S = 1.0
_OTHER_FILES = 256  # beside connections: refused ones, the model, libraries, the log


class StartError(Exception):
    """The server cannot start; `str(error)` is one sentence. Exit status 1."""


async def serve(options: Options) -> bool:
    """Serve until SIGTERM or SIGINT.

    Returns:
        Whether the model thread ended, too (see `Server.close`).

    Raises:
        StartError: if the address or the model cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        settings = engine_settings(options)
        server = Server(options, partial(load_engine, settings), _model_name(options))
        loading = await server.open()
        await _until_stopped(stop, loading)
    except ModelFileError as error:
        raise StartError(str(error)) from error
    return await server.close()


class Server:
    """A worker, the routes to it, and a listener in front of them.

    Args:
        load_engine: makes the engine, on the model thread.
        model_name: what /status calls it.
    """

    def __init__(self, options: Options, load_engine: LoadEngine, model_name: str) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(load_engine, options.queue, options.per_client)
        self._metrics = Metrics(self.worker, model_name, lambda: self.connections, Thermometer())
        self.worker.on_outcome = self._metrics.observe
        routes = self._routes(model_name)
        is_logged = options.log_level in ("debug", "info")
        on_request = RequestLog(sys.stderr, options.log_format, self._loop.call_soon)
        self._shared = Shared(
            routes, _connection_limits(options), self._loop, on_request if is_logged else None
        )
        self._listener: asyncio.Server | None = None
        self._lag_timer: asyncio.TimerHandle | None = None

    def _routes(self, model_name: str) -> Routes:
        options, worker = self._options, self.worker
        access = Access(options.api_key, options.cors_origin)
        limits = ChatLimits(options.max_body, options.max_tokens, sampling_temperature(options))
        addresses = ClientAddresses(options.trusted_proxy)
        asking = Asking(worker, addresses, self._metrics.observe_refusal)
        return Routes(
            load_assets(_CLIENT_DIRECTORY),
            Status(worker, self._metrics, model_name, lambda: self.connections),
            Prompts(asking, access, limits, options.max_json_body),
            Completions(asking, access, limits, options.max_json_body, model_name),
            access,
            model_name,
            options.max_body,
        )

    @property
    def port(self) -> int:
        """Where it listens; only while it is open."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._shared.connections)

    async def open(self) -> "asyncio.Future[None]":
        """Listen, and begin to load the model.

        Returns:
            A future that ends when the model is ready, or with ModelFileError.

        Raises:
            StartError: if the address cannot be used.
        """
        options = self._options
        _allow_open_files(options.connections + _OTHER_FILES)
        try:
            self._listener = await self._loop.create_server(
                lambda: Connection(self._shared), options.host, options.port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a host's name
            where = f"{options.host}:{options.port}"
            reason = getattr(error, "strerror", None) or error
            raise StartError(f"Cannot listen on {where}: {reason}.") from error
        for listening in self._listener.sockets:
            _watch_for_vanished_peers(listening, options.vanished_timeout)
            log.info("Socrates is at http://%s", _show_address(listening))
        self._look_at_loop()
        return self.worker.start()

    async def close(self) -> bool:
        """Shut down in order, within the time the options give.

        Returns:
            Whether the model thread ended, too. If not, it sits in a call into C: the
            interpreter would wait for it at exit, so the process must be ended without.
        """
        log.info("shutting down")
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        limit_s = self._options.shutdown_timeout
        deadline = self._loop.time() + limit_s
        if self._listener is not None:
            self._listener.close()
        self._shared.begin_closing()
        is_thread_free = await self.worker.close(_GRACE_SHARE * limit_s, limit_s)
        await self._close_connections(deadline)
        log.info("stopped")
        return is_thread_free

    # How late the loop comes to what was due: a long answer of ours, or too few CPUs.
    def _look_at_loop(self) -> None:
        due = self._loop.time() + _LAG_INTERVAL_S

        def look() -> None:
            self._metrics.observe_lag(max(0.0, self._loop.time() - due))
            self._look_at_loop()

        self._lag_timer = self._loop.call_at(due, look)

    # What was answered is on its way: the clients have the time that is left to take it.
    async def _close_connections(self, deadline: float) -> None:
        while self._shared.connections and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        for connection in list(self._shared.connections):
            connection.reset()


def engine_settings(options: Options) -> EngineSettings:
    """What the engine needs, from the options and the catalogue.

    Raises:
        ModelFileError: if there is no such model file, or it cannot be used.
        StartError: if a temperature is to be kept and there is none to read.
    """
    model = catalog.find(options.model)
    template = options.template
    if isinstance(model, catalog.CatalogModel):
        path = model.path
        if not model.is_fetched:
            command = f"python -m server.model.fetch {model.name}"
            raise ModelFileError(f"The model {model.name} is not here yet: run `{command}`.")
        template = model.template if template == AUTO_TEMPLATE else template
    else:
        path = model
    # The engine looks again when it loads; here a wrong file is told before anything opens.
    check_fits(modelfile.inspect(path), options.context, options.contexts, memory_to_be_had())
    own = model.persona if isinstance(model, catalog.CatalogModel) else catalog.DEFAULT_PERSONA
    persona = load_persona(find_persona(options.persona or own))
    effort = _effort_settings(options)
    return EngineSettings(path, persona, template, options.context, options.contexts, effort)


def sampling_temperature(options: Options) -> float:
    """What was chosen, else what suits the model."""
    if options.temperature is not None:
        return options.temperature
    model = catalog.find(options.model)
    if isinstance(model, catalog.CatalogModel):
        return model.temperature
    return catalog.DEFAULT_TEMPERATURE


def _effort_settings(options: Options) -> EffortSettings:
    thermometer = Thermometer()
    if options.max_temperature is not None and thermometer.celsius() is None:
        raise StartError(
            "This machine does not tell its temperature (there is no thermal zone under "
            "/sys/class/thermal): leave --max-temperature out."
        )
    return EffortSettings(options.threads, options.max_temperature, thermometer)


def _model_name(options: Options) -> str:
    model = catalog.find(options.model)
    return model.name if isinstance(model, catalog.CatalogModel) else model.stem


def _connection_limits(options: Options) -> ConnectionLimits:
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


def _show_address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# The usual soft limit of 1,024 would be the true limit of connections.
def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


# A peer that loses its power sends no FIN. Set on the listener, these are inherited by
# every accepted socket (Linux, tcp(7)), which saves five system calls a connection.
def _watch_for_vanished_peers(listening: socket.socket, timeout_s: float) -> None:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe_s = max(1, round(timeout_s / _KEEP_ALIVE_PROBES))
    values = {
        "TCP_KEEPIDLE": probe_s,
        "TCP_KEEPINTVL": probe_s,
        "TCP_KEEPCNT": _KEEP_ALIVE_PROBES,
        "TCP_USER_TIMEOUT": round(1000 * timeout_s),
    }
    for name, value in values.items():
        if hasattr(socket, name):  # Linux has them all
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# Return when told to stop; raise if the model cannot be loaded before that.
async def _until_stopped(stop: asyncio.Event, loading: "asyncio.Future[None]") -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((stopping, loading), return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        loading.result()
        await stopping
