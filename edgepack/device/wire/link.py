"""The wire under an SSH connection, and noticing that it is dead."""

import errno
import socket
import subprocess
import threading
import time
from typing import Final, Protocol

import paramiko

ASK_SECONDS: Final = 5.0
"""Silence after which the other side is asked for a sign of life."""

SILENCE_SECONDS: Final = 20.0
"""Silence after which the link is dead: a loss is reported within 30 s."""

# paramiko 5.1 polls its socket every 0.1 s. A longer gap between two looks means that this
# process slept (suspended, or stopped with ^Z), which says nothing of the other side.
_NAP_SECONDS: Final = 3.0


class Wire(Protocol):
    """What paramiko needs of a socket; sockets and paramiko's channels have it."""

    def recv(self, num_bytes: int, /) -> bytes:
        """Receive some bytes."""
        ...

    def send(self, data: bytes, /) -> int:
        """Send some bytes and give their number."""
        ...

    def settimeout(self, timeout: float | None, /) -> None:
        """Limit how long the other two block."""
        ...

    def close(self) -> None:
        """Close the wire."""
        ...


class WatchedWire:
    """A wire that fails by itself when the other side has been silent for too long.

    paramiko 5.1 by itself never notices a peer that vanished without a word: its
    keepalive asks for no reply. TCP's own timers would not see through a jump host or a
    proxy command. Hearing is what counts: an upload hears window adjustments, and who is
    quiet is asked by `Keepalive`.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._is_watching = False
        self._closed = False  # paramiko 5.1 looks at it under this name, as on a socket
        self._heard = self._looked = time.monotonic()
        self.is_dead = False

    def watch(self) -> None:
        """Start to count silence; before, connecting and logging in have their own limits."""
        self._heard = self._looked = time.monotonic()
        self._is_watching = True

    @property
    def silent_seconds(self) -> float:
        """Time since the other side was heard."""
        return time.monotonic() - self._heard

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > _NAP_SECONDS:
            self._heard = now
        self._looked = now
        if self._is_watching and now - self._heard > SILENCE_SECONDS:
            self.is_dead = True
            # With both arguments: paramiko 5.1 formats them, and its thread would end
            # without waking anyone if the first were missing.
            raise ConnectionAbortedError(errno.ECONNABORTED, "the other side is silent")

    def recv(self, num_bytes: int, /) -> bytes:
        """Receive some bytes.

        Raises:
            TimeoutError: nothing came within the wire's timeout.
            ConnectionAbortedError: nothing came for `SILENCE_SECONDS`.
        """
        try:
            data = self._wire.recv(num_bytes)
        except TimeoutError:
            self._look()
            raise
        self._heard = self._looked = time.monotonic()
        return data

    def send(self, data: bytes, /) -> int:
        """Send some bytes and give their number.

        Raises:
            TimeoutError: nothing could be sent within the wire's timeout.
            ConnectionAbortedError: nothing came for `SILENCE_SECONDS`.
        """
        try:
            return self._wire.send(data)
        except TimeoutError:
            self._look()
            raise

    def settimeout(self, timeout: float | None, /) -> None:
        """Limit how long sending and receiving block."""
        self._wire.settimeout(timeout)

    def close(self) -> None:
        """Close the wire."""
        self._closed = True
        self._wire.close()


class Keepalive(threading.Thread):
    """Asks the other side of a quiet connection for a sign of life, as ServerAlive does."""

    def __init__(self, transport: paramiko.Transport, wire: WatchedWire) -> None:
        super().__init__(name="edgepack-keepalive", daemon=True)
        self._transport = transport
        self._wire = wire
        self._stopped = threading.Event()

    def run(self) -> None:
        """Ask whenever it is quiet, until stopped or the connection is gone."""
        while self._transport.is_active() and not self._stopped.wait(ASK_SECONDS):
            if self._wire.silent_seconds >= ASK_SECONDS:
                # Blocks until the answer comes; any answer will do (RFC 4254, 4: a server
                # must answer even a request it does not know). Ends with the connection.
                try:
                    self._transport.global_request("keepalive@openssh.com", wait=True)
                except (paramiko.SSHException, OSError, EOFError):
                    return

    def stop(self) -> None:
        """End the thread at its next turn."""
        self._stopped.set()


class ProxyProcess:
    """A ProxyCommand with a socket for its standard input and output.

    paramiko's own ProxyCommand (5.1) splits the command itself instead of giving it to
    a shell, and spins for ever when the command ends; a socket pair behaves as any wire.
    """

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End the command."""
        self.socket.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
