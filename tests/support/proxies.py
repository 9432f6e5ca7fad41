"""Real proxies in front of our servers: HAProxy, nginx and Caddy, with the files that we ship."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from bench.kit.server import free_port
from tests.support.process import ROOT
from tests.support.waiting import wait_until

DEPLOY = ROOT / "server" / "deploy"


def find(name):
    beside_python = Path(sys.executable).with_name(name)  # installed by pip
    return shutil.which(name) or shutil.which(f"/usr/sbin/{name}") or shutil.which(beside_python)


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command, port, **environment):
    """Run a proxy; yields its port and its log's lines once it listens. SIGTERM ends it."""
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True).start()
    try:
        wait_until(lambda: is_listening(port) or process.poll() is not None, "the proxy")
        assert process.poll() is None, f"{command[0]} ended: {''.join(lines)}"
        yield port, lines
    finally:
        process.terminate()
        process.wait()


@contextmanager
def haproxy(ports):
    """Run our HAProxy configuration for three servers; yields port, log lines, metrics port."""
    port, metrics = free_port(), free_port()
    binds = {"BIND": f"127.0.0.1:{port}", "METRICS": f"127.0.0.1:{metrics}"}
    servers = {f"PI{number + 1}": f"127.0.0.1:{own}" for number, own in enumerate(ports)}
    command = [find("haproxy"), "-db", "-f", str(DEPLOY / "haproxy.cfg")]
    with running(command, port, **binds, **servers) as (_, lines):
        yield port, lines, metrics


def nginx(directory, server_port, read_timeout="30m", path="/"):
    """Run our nginx configuration, without its certificate, in front of one server.

    Under a `path` it passes requests on as its comment says.
    """
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    lines = [
        line for line in text.splitlines() if "ssl_certificate" not in line and "[::]" not in line
    ]
    site = (
        "\n".join(lines)
        .replace("443 ssl", f"127.0.0.1:{port}")
        .replace("location / {", f"location {path} {{")
        .replace(":8080;", f":{server_port};" if path == "/" else f":{server_port}/;")
        .replace("read_timeout 30m", f"read_timeout {read_timeout}")
    )
    paths = "".join(
        f"{name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{site}\n}}\n"
    )
    command = [find("nginx"), "-c", str(directory / "nginx.conf"), "-e", f"{directory}/error.log"]
    return running(command, port)


def caddy(directory, server_port):
    """Run our Caddyfile, over plain HTTP for lack of a certificate, in front of one server."""
    port = free_port()
    text = (DEPLOY / "Caddyfile").read_text()
    site = text.replace("socrates.example", f"http://127.0.0.1:{port}")
    (directory / "Caddyfile").write_text(
        "{\n\tadmin off\n}\n" + site.replace(":8080", f":{server_port}")
    )
    command = [find("caddy"), "run", "--config", str(directory / "Caddyfile")]
    return running(command, port, HOME=str(directory))
