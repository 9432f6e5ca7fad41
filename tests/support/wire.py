"""Requests and responses as bytes on a socket."""

import json


def prompt_request(prompt, query="", headers=()):
    """The bytes of a POST to /prompt."""
    body = prompt if isinstance(prompt, bytes) else prompt.encode()
    lines = [f"POST /prompt{query} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def completion_body(prompt, **fields):
    """The JSON of a question to the chat completions API."""
    return json.dumps({"messages": [{"role": "user", "content": prompt}]} | fields).encode()


def completion_request(prompt, **fields):
    """The bytes of a POST to the chat completions API."""
    body = completion_body(prompt, **fields)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def read_all(client):
    data = b""
    while part := client.recv(65536):
        data += part
    return data


def read_until(client, marker):
    data = b""
    while marker not in data:
        part = client.recv(65536)
        assert part, f"the connection ended before {marker!r}: {data!r}"
        data += part
    return data


def parse_response(data):
    """Return (status, head, body) of one whole response; a chunked body must be complete."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head.lower():
        body, trailers = decode_chunks(body)
        head += b"\r\n" + trailers
    return status, head.decode("latin-1"), body


def decode_chunks(data):
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            assert data.endswith(b"\r\n"), "the last chunk is missing"
            return body, data
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
