"""The other servers of bench/static.py: `python -m bench.rivals NAME PORT FILE`.

FILE holds our own response, head and body. The ceiling writes exactly those bytes; the
others answer with the same body and type, each with the head it makes by itself.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

_TYPE = "image/svg+xml"


def uvicorn(port: int, answer: bytes) -> None:
    """Uvicorn with httptools on uvloop, and a bare ASGI application."""
    from uvicorn import run

    body = _body(answer)
    headers = [(b"content-type", _TYPE.encode()), (b"content-length", str(len(body)).encode())]

    async def application(
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
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


def aiohttp(port: int, answer: bytes) -> None:
    """The web server of aiohttp, on uvloop."""
    from aiohttp import web

    body = _body(answer)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=_TYPE)

    application = web.Application()
    application.router.add_get("/static/{name}", handle)
    loop = uvloop.new_event_loop()
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


def waitress(port: int, answer: bytes) -> None:
    """Flask on waitress, as the program that this one replaces."""
    from flask import Flask, Response
    from waitress import serve

    body = _body(answer)
    application = Flask(__name__, static_folder=None)

    def handle(name: str) -> Any:
        return Response(body, content_type=_TYPE)

    application.add_url_rule("/static/<name>", view_func=handle)
    serve(application, host="127.0.0.1", port=port)


def talking(model: str, threads: str, port: str) -> None:
    """Flask, waitress and ctransformers in the shortest way: what this program replaces."""
    from ctransformers import LLM, Config
    from flask import Flask, Response, request
    from waitress import serve

    config = Config(context_length=2048, threads=int(threads), temperature=0.8)
    llm = LLM(model, "gguf", config=config)
    application = Flask(__name__)

    def prompt() -> Any:
        text = request.get_data(as_text=True)
        most = int(request.args["max_tokens"])
        return Response(llm(text, max_new_tokens=most, stream=True), mimetype="text/plain")

    application.add_url_rule("/", view_func=prompt, methods=["POST"])
    serve(application, host="127.0.0.1", port=int(port), threads=1)


def ceiling(port: int, answer: bytes) -> None:
    """A bare uvloop protocol: our bytes for whatever comes."""

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(answer)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


def _body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


_STATIC = {"uvicorn": uvicorn, "aiohttp": aiohttp, "waitress": waitress, "ceiling": ceiling}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "talking":
        talking(*arguments)
    else:
        _STATIC[name](int(arguments[0]), Path(arguments[1]).read_bytes())
