"""Our real server, on a thread of the test's process, in front of a fake engine."""

import asyncio
import threading

import uvloop

from server.lifecycle import Server
from server.options import Options
from tests.support import ServerProcess, wait_until


class InProcessServer(ServerProcess):
    """Talks like `ServerProcess`, but its model is the test's to steer."""

    def __init__(self, engine, load=None, **options):
        self.engine = engine
        self.load = load or (lambda *_: engine)
        self.options = Options(**({"port": 0} | options))
        self.server = None
        self.is_thread_free = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: self.server is not None or not self.thread.is_alive(), "the listener")
        self.port = self.server.port
        return self

    def __exit__(self, *exception):
        self.engine.gated = False
        self.engine.allow(1000)
        self.close()
        self.thread.join()

    def close(self):
        """Shut down in order, as on SIGTERM."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop.set)

    def _run(self):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = Server(self.options, self.load, "fake")
        loading = await server.open()
        self.server = server
        await self._stop.wait()
        self.is_thread_free = await server.close()
        loading.cancel()
