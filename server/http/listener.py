"""The listening socket: its options, and the limit of open files."""

import resource
import socket

_KEEP_ALIVE_PROBES = 3


def show_address(listening: socket.socket) -> str:
    """The socket's address as HOST:PORT, in the form that URLs use."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files to `wanted`, or as far as the hard limit allows.

    Otherwise the usual soft limit of 1,024 would be the real limit on connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def watch_for_vanished_peers(listening: socket.socket, timeout_s: float) -> None:
    """Drop accepted connections whose peer does not acknowledge for `timeout_s` seconds.

    A peer that loses power sends no FIN. Every accepted socket inherits these options from the
    listener (Linux, tcp(7)), which saves five system calls per connection.
    """
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
