"""A Hugging Face hub of one file on loopback, for the hub's real client."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `content` at every address; its fields select what goes wrong.

    Use as a context manager. `requests` records (method, Range, Authorization).
    """

    def __init__(self, content):
        self.content = content
        self.etag = hashlib.sha256(content).hexdigest()
        self.token = None  # the token it requires, if any
        self.refusal = None  # (status, X-Error-Code) for every request
        self.cuts = []  # bytes after which each of the next downloads breaks off
        self.holds_after = None  # bytes after which a download stalls
        self.requests = []
        self.ended = threading.Event()

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self, with_body=False)

            def do_GET(self):
                hub.answer(self, with_body=True)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def ranges(self):
        return [found for method, found, _ in self.requests if method == "GET"]

    def answer(self, handler, with_body):
        if handler.path.startswith("/api/"):  # requests that the client makes on its own
            self.refuse(handler, 404, "")
            return
        authorization = handler.headers.get("Authorization")
        self.requests.append((handler.command, handler.headers.get("Range"), authorization))
        refusal = self.refusal
        if self.token and authorization != f"Bearer {self.token}":
            refusal = (401, "GatedRepo")
        if refusal:
            self.refuse(handler, *refusal)
            return
        start = int((handler.headers.get("Range") or "bytes=0-")[len("bytes=") :].rstrip("-"))
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("ETag", f'"{self.etag}"')
        handler.send_header("Content-Length", str(len(body)))
        if start:
            end = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        handler.end_headers()
        if with_body:
            self.send(handler, body)

    def refuse(self, handler, status, code):
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def send(self, handler, body):
        if self.cuts:
            handler.wfile.write(body[: self.cuts.pop(0)])
            handler.close_connection = True
        elif self.holds_after is not None:
            handler.wfile.write(body[: self.holds_after])
            handler.wfile.flush()
            self.ended.wait()
            handler.close_connection = True
        else:
            handler.wfile.write(body)
