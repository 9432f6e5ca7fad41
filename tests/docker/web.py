"""Asking a server in a container."""

import http.client
import json
from contextlib import closing

from tests.support.waiting import PATIENCE_S


def request(address, method, path, body=None, headers=()):
    """Send one request to (host, port); returns (status, body)."""
    with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()


def status(address):
    """What /status says."""
    return json.loads(request(address, "GET", "/status")[1])


def is_ready(address):
    """Whether a prompt would be accepted now."""
    try:
        return request(address, "GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False
