"""A TCP port whose bytes arrive later: a link with a round-trip time, in user space.

The kernels of test machines often lack `netem`. Each byte is held back by half of the round
trip in each direction; there is no limit of rate, and TCP's own windows never fill, since this
process takes everything at once. So what a transfer loses here it loses to its protocol's own
windows and turns.
"""

import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress

_PART_BYTES = 256 * 1024
_MOST_BYTES = 256 * 2**20


class _Delay:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
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
        while data:
            try:
                data = self._source.recv(_PART_BYTES)
            except OSError:
                data = b""
            with self._changed:
                self._changed.wait_for(lambda: self._num_bytes < _MOST_BYTES)
                self._parts.append((time.monotonic() + self._seconds, data))
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
    """Serve: `slow_link.py PORT MILLISECONDS` prints its own port, and leads to that one."""
    port, milliseconds = int(sys.argv[1]), float(sys.argv[2])
    seconds = milliseconds / 2000
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Delay(near, far, seconds).start()
        _Delay(far, near, seconds).start()


if __name__ == "__main__":
    main()
