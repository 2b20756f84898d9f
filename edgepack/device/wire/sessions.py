"""Sessions on an SSH connection, opened ahead: a command then takes one round trip, not three."""

import threading
from contextlib import suppress
from typing import Final

import paramiko

from edgepack.interrupts import start_thread

_OPEN_SECONDS: Final = 20.0
_CHANNEL_REQUEST: Final = b"\x62"  # RFC 4254, 9


class SpareSession:
    """One session that is opened while the command before it runs.

    Of OpenSSH only: dropbear (2022.83) ends a session that has no command yet as soon as
    another one's command ends. A server that refuses (MaxSessions 1) is not asked again.
    """

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._opening: threading.Thread | None = None
        self._channel: paramiko.Channel | None = None
        self._is_refused = "OpenSSH" not in transport.remote_version

    def prepare(self) -> None:
        """Begin to open a session, unless there is one or it is refused."""
        with self._lock:
            if self._is_refused or self._opening is not None or self._channel is not None:
                return
            self._opening = start_thread(self._open)

    def _open(self) -> None:
        channel: paramiko.Channel | None = None
        # Where it fails, the next command opens its own, and tells what is wrong.
        with suppress(paramiko.SSHException, OSError, EOFError):
            channel = self._transport.open_session(timeout=_OPEN_SECONDS)
        with self._lock:
            self._is_refused = channel is None
            self._channel, self._opening = channel, None

    def take(self) -> paramiko.Channel | None:
        """Give the session, awaiting it if it is being opened; None when there is none."""
        with self._lock:
            opening = self._opening
        if opening is not None:
            opening.join(timeout=_OPEN_SECONDS)
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is None or channel.closed or channel.eof_received:
            return None
        return channel


def request_command(
    transport: paramiko.Transport, channel: paramiko.Channel, command: bytes
) -> None:
    """Ask for a command without awaiting the server's word that it runs.

    `Channel.exec_command` of paramiko 5.1 awaits it, and what the command is to read could
    only follow a round trip later. When the server refuses, it closes the channel.

    Raises:
        SSHException, OSError, EOFError: the connection is gone.
    """
    message = paramiko.Message()
    message.add_byte(_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    # As exec_command does; paramiko has no other way, and its types do not know this one.
    transport._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001
