"""Asking a server in a container."""

import http.client
import json
import socket
from contextlib import closing, contextmanager

from tests.support.waiting import PATIENCE_S
from tests.support.wire import prompt_request


def request(address, method, path, body=None, headers=()):
    """Send one request to (host, port); returns (status, body)."""
    with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()


@contextmanager
def speaking(address, max_tokens=500):
    """Ask for a long answer; yields the socket and what came first, and closes it in the end."""
    request = prompt_request("Tell me a story.", f"?max_tokens={max_tokens}&ignore_eos=true")
    with closing(socket.create_connection(address, timeout=PATIENCE_S)) as client:
        client.sendall(request)
        yield client, client.recv(65536)


def status(address):
    """What /status says."""
    return json.loads(request(address, "GET", "/status")[1])


def is_ready(address):
    """Whether a prompt would be accepted now."""
    try:
        return request(address, "GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False
