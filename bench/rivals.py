"""The other servers of bench.static and bench.compare: `python -m bench.rivals NAME PORT FILE`.

FILE holds our own response, head and body. The ceiling writes exactly those bytes; uvicorn
answers with the same body and type and a head of its own making. For `talking`, FILE is the model.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

_TYPE = "image/svg+xml"


def uvicorn(port: int, file: Path) -> None:
    """Uvicorn with httptools on uvloop, and a bare ASGI application."""
    from uvicorn import run

    body = file.read_bytes().partition(b"\r\n\r\n")[2]
    fields = [(b"content-type", _TYPE.encode()), (b"content-length", str(len(body)).encode())]

    async def application(
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    run(
        application,
        port=port,
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="error",
        lifespan="off",
    )


def talking(port: int, model: Path) -> None:
    """Flask, waitress and ctransformers, kept short: the kind of program this one replaces."""
    from ctransformers import LLM, Config
    from flask import Flask, Response, request
    from waitress import serve

    config = Config(context_length=2048, threads=len(os.sched_getaffinity(0)), temperature=0.8)
    llm = LLM(str(model), "gguf", config=config)
    application = Flask(__name__)

    def prompt() -> Any:
        text, most = request.get_data(as_text=True), int(request.args["max_tokens"])
        return Response(llm(text, max_new_tokens=most, stream=True), mimetype="text/plain")

    application.add_url_rule("/", view_func=prompt, methods=["POST"])
    serve(application, host="127.0.0.1", port=port, threads=1)


def ceiling(port: int, file: Path) -> None:
    """A bare uvloop protocol that sends our bytes whatever it receives."""
    answer = file.read_bytes()

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(answer)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


if __name__ == "__main__":
    name, port, file = sys.argv[1:]
    {server.__name__: server for server in (uvicorn, talking, ceiling)}[name](int(port), Path(file))
