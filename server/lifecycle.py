"""From start to exit: the listener, the signals, the connections, the orderly shutdown.

Owns the process's parts and their order. The listener opens at once, while the model
loads. SIGTERM or SIGINT shuts down in this order: stop accepting, refuse waiting prompts,
let the running answer finish or cancel it, close the connections, exit 0.
"""

import asyncio
import logging
import os
import signal
from functools import partial

from server.api.metrics import Metrics
from server.assembly import (
    StartError,
    assemble_routes,
    connection_limits,
    engine_settings,
    model_name,
)
from server.http.clients import ClientAddresses
from server.http.connection import Connection
from server.http.listener import allow_open_files, show_address, watch_for_vanished_peers
from server.http.state import ServerState
from server.logs import RequestLog, flush_log, log_stream
from server.model.errors import ModelFileError
from server.model.loader import load_engine
from server.model.machine.thermometer import Thermometer
from server.model.worker import LoadEngine, Worker
from server.options import Options

log = logging.getLogger(__name__)

_BACKLOG = 1024
# The share of the shutdown's time in which a running answer may still finish.
_GRACE_SHARE = 0.6
_POLL_S = 0.01
_LAG_INTERVAL_S = 1.0
_OTHER_FILES = 256  # besides connections: refused ones, the model, libraries, the log


async def serve(options: Options) -> bool:
    """Serve until SIGTERM, SIGINT or SIGHUP (a terminal that is closed); a second one ends at once.

    Returns:
        Whether the model thread ended, too (see `Server.close`).

    Raises:
        StartError: if the address or the model cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            log.warning("ended at once by a second signal")
            flush_log()
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, on_signal)
    try:
        settings = engine_settings(options)
        server = Server(options, partial(load_engine, settings), model_name(options))
        loading = await server.open()
        await _until_stopped(stop, loading)
    except ModelFileError as error:
        raise StartError(str(error)) from error
    return await server.close()


class Server:
    """A worker, the routes to it, and a listener in front of them.

    Args:
        load_engine: makes the engine, on the model thread.
        model_name: what /status calls the model.
    """

    def __init__(self, options: Options, load_engine: LoadEngine, model_name: str) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(load_engine, options.queue, options.per_client)
        self._metrics = Metrics(self.worker, model_name, lambda: self.connections, Thermometer())
        self.worker.on_outcome = self._metrics.observe
        routes = assemble_routes(
            options, self._loop, self.worker, self._metrics, model_name, lambda: self.connections
        )
        is_logged = options.log_level in ("debug", "info")
        on_request = RequestLog(log_stream(), options.log_format, self._loop.call_soon)
        self.state = ServerState(
            routes,
            connection_limits(options),
            self._loop,
            on_request if is_logged else None,
            clients=ClientAddresses(options.trusted_proxy),
        )
        self._listeners: list[asyncio.Server] = []  # one an address
        self._lag_timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; only while it is open."""
        port: int = self._listeners[0].sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self.state.connections)

    async def open(self) -> "asyncio.Future[None]":
        """Start listening and start loading the model.

        Returns:
            A future that is done when the model is ready, or fails with ModelFileError.

        Raises:
            StartError: if the address cannot be used.
        """
        options = self._options
        allow_open_files(options.connections + _OTHER_FILES)
        for host in options.host:
            # A port that the first address picked holds for all.
            port = self.port if self._listeners else options.port
            self._listeners.append(await self._listen(host, port))
        for listener in self._listeners:
            for listening in listener.sockets:
                watch_for_vanished_peers(listening, options.vanished_timeout)
                log.info("Socrates is at http://%s", show_address(listening))
        self._look_at_loop()
        return self.worker.start()

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        try:
            return await self._loop.create_server(
                lambda: Connection(self.state), host, port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
            reason = getattr(error, "strerror", None) or error
            raise StartError(f"Cannot listen on {host}:{port}: {reason}.") from error

    async def close(self) -> bool:
        """Shut down in order, within `shutdown_timeout`.

        Returns:
            Whether the model thread ended, too. If not, it is inside a C call: the interpreter
            would wait for it at exit, so the process must exit without the interpreter.
        """
        log.info("shutting down")
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        limit_s = self._options.shutdown_timeout
        deadline = self._loop.time() + limit_s
        for listener in self._listeners:
            listener.close()
        self.state.begin_closing()
        is_thread_free = await self.worker.close(_GRACE_SHARE * limit_s, limit_s)
        await self._close_connections(deadline)
        log.info("stopped")
        return is_thread_free

    # Measures event-loop lag: a blocking call of ours, or too few CPUs.
    def _look_at_loop(self) -> None:
        due = self._loop.time() + _LAG_INTERVAL_S

        def look() -> None:
            self._metrics.observe_lag(max(0.0, self._loop.time() - due))
            self._look_at_loop()

        self._lag_timer = self._loop.call_at(due, look)

    # Responses are still on their way: the clients get the remaining time to read them.
    async def _close_connections(self, deadline: float) -> None:
        while self.state.connections and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        for connection in list(self.state.connections):
            connection.reset()


# Return on a signal; raise if the model cannot be loaded before that.
async def _until_stopped(stop: asyncio.Event, loading: "asyncio.Future[None]") -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((stopping, loading), return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        loading.result()
        await stopping
