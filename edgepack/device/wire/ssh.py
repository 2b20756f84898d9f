"""A device behind SSH."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

import paramiko

from edgepack.device.wire import faults
from edgepack.device.wire.link import SILENCE_SECONDS, WatchedWire
from edgepack.device.wire.remote_shell import (
    show_argv,
    split_start,
    stop_argv,
    wrap_command,
)
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.sending import SLOWEST_READ_BYTES_PER_SECOND
from edgepack.device.wire.sessions import SpareSession, request_command
from edgepack.device.wire.wired import WiredDevice
from edgepack.errors import ConnectError, DeviceError, DeviceTimeoutError, KilledError
from edgepack.interrupts import start_thread

if TYPE_CHECKING:
    import threading

_OPEN_SECONDS: Final = 20.0
_REFUSED_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 6.0
_READ_BYTES: Final = 128 * 1024
_STDERR_BYTES: Final = 64 * 1024
# draft-ietf-secsh-filexfer-02: length, SSH_FXP_INIT, version 3; the answer is SSH_FXP_VERSION.
_SFTP_INIT: Final = b"\0\0\0\5\1\0\0\0\3"
_SFTP_VERSION: Final = b"\2"
_SFTP_ANSWER_BYTES: Final = 4096
_NOISE_BYTES: Final = 1024 * 1024
# What an upload sends at once; paramiko 5.1 cuts it to the host's packets (32 KiB).
_SEND_BYTES: Final = 256 * 1024


class SshCommand:
    """A command running on the device: its channel, and the process behind it.

    Used inside `with`: leaving before the end stops the process on the device.
    """

    def __init__(
        self, transport: paramiko.Transport, wire: WatchedWire, spare: SpareSession,
        argv: Sequence[str], *, name: str, timeout_seconds: float,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._wire = wire
        self._name = name
        self._argv = argv
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._process: int | None = None
        self._pending = b""
        self._stderr = bytearray()
        self._writer: threading.Thread | None = None
        self._command = wrap_command(argv)
        self._channel = spare.take() or self._open()
        try:
            text = self._command.text.encode("utf-8", errors="surrogateescape")
            request_command(transport, self._channel, text)
        except (paramiko.SSHException, OSError, EOFError):
            self._close()
            raise self._lost("refused to run a command") from None
        spare.prepare()
        # Unread stderr would fill the channel's window and stop the command.
        self._drain = start_thread(self._read_stderr)

    def _open(self) -> paramiko.Channel:
        limit_seconds = min(_OPEN_SECONDS, self._timeout_seconds)
        refused_until = time.monotonic() + _REFUSED_SECONDS
        while True:
            try:
                return self._transport.open_session(timeout=limit_seconds)
            except paramiko.ChannelException as error:
                # OpenSSH counts a session until it has tidied up after it, a moment after
                # it told us of its end; with MaxSessions 1 the next one comes too soon.
                if time.monotonic() < refused_until:
                    time.sleep(_REFUSED_SECONDS / 20)
                    continue
                raise ConnectError(
                    f"{self._name} refused another session: {clean_text(error.text)}.",
                    remedy="Raise MaxSessions in the device's sshd_config, or end other "
                    "connections.",
                ) from None
            except (paramiko.SSHException, OSError, EOFError) as error:
                if "Timeout" in str(error):
                    raise DeviceTimeoutError(
                        f"{self._name} opened no session for {show_argv(self._argv)} within "
                        f"{limit_seconds:g} s.",
                        remedy="See whether the device is overloaded, or try again.",
                    ) from None
                raise self._lost("opened no session") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._channel.exit_status_ready() or not self._channel.eof_received:
            self._stop()
        self._close()
        self._drain.join(timeout=1)
        if self._writer is not None:
            self._writer.join(timeout=1)

    def _lost(self, what: str) -> ConnectError:
        if self._wire.is_dead:
            what = f"has been silent for {SILENCE_SECONDS:.0f} s"
        elif not self._transport.is_active():
            what = "closed the connection"
        return ConnectError(
            f"{self._name} {what} while {show_argv(self._argv)} ran.",
            remedy="See whether the device is up and its network works, then try again.",
        )

    def _late(self) -> DeviceTimeoutError:
        return faults.too_late(self._name, self._argv, self._timeout_seconds)

    @property
    def is_ended(self) -> bool:
        """Whether the device has closed the command's output."""
        return self._channel.closed or bool(self._channel.eof_received)

    @property
    def stderr(self) -> str:
        """What the command wrote to standard error, its last part when long."""
        return bytes(self._stderr).decode("utf-8", errors="replace")

    def _read_stderr(self) -> None:
        while data := self._channel.recv_stderr(_READ_BYTES):
            self._stderr += data
            del self._stderr[:-_STDERR_BYTES]

    def feed(self, data: bytes) -> None:
        """Send standard input, beside the reading of output, and close it."""
        if not data:
            self._end_input()
            return
        self._writer = start_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):
            return  # the command did not want it; how it ended says the rest

    def _end_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):
            return  # a link that was just lost (paramiko 5.1: EOFError); reading tells it

    def _close(self) -> None:
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            return  # likewise; there is nothing left to close

    def send(self, data: memoryview) -> None:
        """Send a part of standard input; the timeout is for each step forward.

        Raises:
            DeviceTimeoutError: nothing could be sent.
            BrokenPipeError: the command has ended.
            ConnectError: the link was lost.
        """
        self._channel.settimeout(self._timeout_seconds)
        try:
            while data:
                sent = self._channel.send(data)  # type: ignore[arg-type]  # slices only
                if sent == 0:
                    break
                data = data[sent:]
        except TimeoutError:
            raise self._late() from None
        except (OSError, EOFError, paramiko.SSHException):
            sent = 0
        if data and not self._transport.is_active():
            raise self._lost("closed the connection") from None
        if data:
            raise BrokenPipeError
        self._deadline = time.monotonic() + self._timeout_seconds

    def close_stdin(self, *, num_bytes: int) -> None:
        """Close standard input; what was sent may be read once more before the answer comes."""
        self._end_input()
        self._deadline += num_bytes / SLOWEST_READ_BYTES_PER_SECOND

    def _receive(self) -> bytes:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self._late()
        self._channel.settimeout(remaining)
        try:
            data = self._channel.recv(_READ_BYTES)
        except TimeoutError:
            raise self._late() from None
        if not data and not self._transport.is_active():
            raise self._lost("closed the connection")
        return data

    def read(self) -> bytes:
        """Read the next part of standard output; empty at its end.

        Raises:
            DeviceTimeoutError: the command's time is over.
            ConnectError: the link was lost.
            DeviceError: the login shell did not run the command.
        """
        if self._process is None:
            self._await_marker()
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        return self._receive()

    def _await_marker(self) -> None:
        received = b""
        while True:
            start = split_start(self._command, received)
            if start is not None:
                self._process, self._pending = start
                return
            if len(received) > _NOISE_BYTES:
                raise self._not_run(f"it printed more than {_NOISE_BYTES} bytes instead")
            data = self._receive()
            if not data:
                noise = f"{received.decode(errors='replace')} {self.stderr}"
                said = clean_text(" ".join(noise.split()), limit=400)
                raise self._not_run(f"it said: {said}" if said else "it said nothing")
            received += data

    def _not_run(self, reason: str) -> DeviceError:
        return DeviceError(
            f"{self._name}: the login shell did not run {show_argv(self._argv)}; {reason}.",
            remedy="Give the user a login shell that runs commands, and take what exits or "
            "reads input out of its start-up files.",
        )

    def wait(self) -> int:
        """Wait for the exit code, after the end of standard output.

        Raises:
            DeviceTimeoutError: the command's time is over.
            ConnectError: the link was lost.
            DeviceError: the command ended without an exit code.
        """
        if not self._channel.status_event.wait(max(0.0, self._deadline - time.monotonic())):
            raise self._late()
        self._drain.join(timeout=1)
        if self._channel.exit_status >= 0:
            return self._channel.exit_status
        if not self._transport.is_active():
            raise self._lost("closed the connection")
        raise KilledError(
            f"{self._name}: {show_argv(self._argv)} was killed.",
            remedy="See whether the device ran out of memory (dmesg says so).",
        )

    def _stop(self) -> None:
        """End the process on the device; without a link there is no way to."""
        if self._process is None or not self._transport.is_active() or self._wire.is_dead:
            return
        self._close()
        try:
            channel = self._transport.open_session(timeout=_STOP_SECONDS)
            with channel:
                channel.exec_command(wrap_command(stop_argv(self._process)).text.encode())
                channel.status_event.wait(_STOP_SECONDS)
        except (paramiko.SSHException, OSError, EOFError):
            return  # the process meets its closed output at the next line it writes


class SshDevice(WiredDevice):
    """A device reached through an authenticated SSH connection; a `transport.Device`."""

    def __init__(self, transport: paramiko.Transport, wire: WatchedWire, *, name: str) -> None:
        super().__init__(name=name, part_bytes=_SEND_BYTES)
        self._transport = transport
        self._wire = wire
        self._spare = SpareSession(transport)

    def start(self, argv: Sequence[str], timeout_seconds: float) -> SshCommand:
        """Start a command on the device."""
        return SshCommand(
            self._transport,
            self._wire,
            self._spare,
            argv,
            name=self.name,
            timeout_seconds=timeout_seconds,
        )

    def offers_sftp(self, *, timeout_seconds: float) -> bool | None:
        """Tell whether an SFTP server answers; None when no session could be opened for it."""
        try:
            channel = self._transport.open_session(timeout=timeout_seconds)
        except (paramiko.SSHException, OSError, EOFError):
            return None
        with channel:
            channel.settimeout(timeout_seconds)
            try:
                channel.invoke_subsystem("sftp")
                channel.sendall(_SFTP_INIT)
                # A server whose SFTP program is missing accepts the request and says nothing.
                return channel.recv(_SFTP_ANSWER_BYTES)[4:5] == _SFTP_VERSION
            except (paramiko.SSHException, OSError, EOFError):
                return False
