"""A TCP port whose bytes arrive later: a link with a round-trip time, in user space.

The kernels of test machines often lack `netem`. Each byte is held back by half of the round
trip in each direction; without a limit of rate TCP's own windows never fill, since this
process takes everything at once. So what a transfer loses here it loses to its protocol's own
windows and turns. With one, bytes leave at that rate in each direction, and what has not left
stands before the link as in a router's queue.
"""

import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress

_PART_BYTES = 256 * 1024
_MOST_BYTES = 256 * 2**20
_QUEUED_PART_BYTES = 16 * 1024
_MOST_QUEUED_BYTES = 256 * 1024


class _Delay:
    """One direction of a connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, seconds: float, byte_seconds: float
    ) -> None:
        self._byte_seconds = byte_seconds
        self._part_bytes = _QUEUED_PART_BYTES if byte_seconds else _PART_BYTES
        self._most_bytes = _MOST_QUEUED_BYTES if byte_seconds else _MOST_BYTES
        self._source = source
        self._sink = sink
        self._seconds = seconds
        self._parts: deque[tuple[float, bytes]] = deque()
        self._num_bytes = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        for work in (self._receive, self._send):
            threading.Thread(target=work, daemon=True).start()

    def _receive(self) -> None:
        data = b"-"
        free = 0.0
        while data:
            try:
                data = self._source.recv(self._part_bytes)
            except OSError:
                data = b""
            with self._changed:
                self._changed.wait_for(lambda: self._num_bytes < self._most_bytes)
                free = max(free, time.monotonic()) + len(data) * self._byte_seconds
                self._parts.append((free + self._seconds, data))
                self._num_bytes += len(data)
                self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts)
                due, data = self._parts.popleft()
                self._num_bytes -= len(data)
                self._changed.notify_all()
            # What is simulated is time itself.
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if data:
                    self._sink.sendall(data)
                    continue
            except OSError:
                pass
            with suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)
            return


def main() -> None:
    """Serve: `slow_link.py PORT MILLISECONDS [MBIT/S]` prints its own port, and leads to that."""
    port, milliseconds = int(sys.argv[1]), float(sys.argv[2])
    seconds = milliseconds / 2000
    byte_seconds = 8e-6 / float(sys.argv[3]) if sys.argv[3:] else 0.0
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Delay(near, far, seconds, byte_seconds).start()
        _Delay(far, near, seconds, byte_seconds).start()


if __name__ == "__main__":
    main()
