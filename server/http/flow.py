"""Backpressure: a client that does not read what it is sent.

Owns, for one connection, whether the kernel accepts no more data (`is_stalled`) and how much was
unsent at the last look. Knows nothing of requests; the connection decides what to do.
"""

import asyncio
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # socket(7): linger on, for 0 seconds


class Flow:
    """Tracks what one client has left unread.

    Args:
        transport: the connection's transport.
        vanished_timeout_s: TCP_USER_TIMEOUT while the client reads.
    """

    __slots__ = ("_transport", "_unsent_bytes", "_vanished_timeout_s", "is_stalled")

    def __init__(self, transport: asyncio.Transport, vanished_timeout_s: float) -> None:
        # At a limit of 0, `pause_writing` comes with the first byte that waits, so it means that
        # the kernel accepts no more; at uvloop's 64 KiB a stalled reader would go unnoticed.
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._vanished_timeout_s = vanished_timeout_s
        self._unsent_bytes = 0  # as if the client had read nothing since the last look
        self.is_stalled = False

    def pause(self) -> None:
        """Note that the kernel accepts no more."""
        self.is_stalled = True
        # With a full window, TCP_USER_TIMEOUT mistakes a slow reader for a vanished peer (seen:
        # 18 s at 15 s of it). While the window is full, the connection's own deadline decides.
        self._set_user_timeout(0)
        self.look()

    def resume(self) -> None:
        """Note that the client has read everything."""
        self.is_stalled = False
        self._set_user_timeout(self._vanished_timeout_s)

    def write(self, data: bytes) -> None:
        """Send `data`. If this stalls the client, `pause` counts what is unsent."""
        if self.is_stalled:
            self._unsent_bytes += len(data)
        self._transport.write(data)

    def look(self) -> None:
        """Remember how much is unsent now."""
        self._unsent_bytes = self._transport.get_write_buffer_size()

    @property
    def has_moved(self) -> bool:
        """Whether a stalled client has read anything since the last look: slow, but alive."""
        return self._transport.get_write_buffer_size() < self._unsent_bytes

    def reset_on_close(self) -> None:
        """Make the transport close with a reset instead of an orderly end."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def _set_user_timeout(self, seconds: float) -> None:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
