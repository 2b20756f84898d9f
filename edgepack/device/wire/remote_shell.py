"""Commands for a device's shell: the one place where argv becomes text."""

import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgepack.device.wire.hashing import SHA256_FUNCTION
from edgepack.errors import DeviceError

# Linux takes 128 KiB in one argument (MAX_ARG_STRLEN), and sshd hands the whole command to
# the login shell as one.
_MAX_COMMAND_BYTES: Final = 120 * 1024

# Arguments: target, partial file, size, mode, what unpacks the input or nothing. The size is
# checked because a lost link looks like the end of the file to `cat`; what arrived stays then,
# unpacked as it came, for a later push to go on from. The digest is read back from what was stored;
# openssl goes first because it uses the processor's own instructions (0.1 s for 100 MB,
# coreutils' sha256sum of Debian 12: 0.45 s).
_UPLOAD_SCRIPT: Final = f"""
part=$2 cut=
trap '[ -n "$cut" ] || rm -f -- "$part" 2> /dev/null' EXIT
trap 'cut=1; exit 130' HUP INT TERM PIPE
umask 077
if [ -n "$5" ]; then $5 | cat > "$part" || exit 74
else cat > "$part" || exit 74; fi
size=$(wc -c < "$part")
if [ "$((size))" != "$3" ]; then
  cut=1
  echo "$((size)) of $3 bytes arrived" >&2
  exit 74
fi
{SHA256_FUNCTION}
prefer 'openssl dgst -sha256 -r'
sum=$(sha256 < "$part") || exit 74
chmod "$4" "$part" && mv -f -- "$part" "$1" || exit 74
trap - EXIT
echo "${{sum%% *}}"
"""

# Argument: the process. OpenSSH makes it the leader of its own group; dropbear (2022.83)
# does not, so its descendants are looked up where there is a /proc. KILL follows when TERM
# was ignored for a second.
_STOP_SCRIPT: Final = """
list_tree() {
  printf '%s ' "$1"
  for stat in /proc/[0-9]*/stat; do
    { read -r line < "$stat"; } 2> /dev/null || continue
    set -- "$1" ${line##*) }
    child=${stat#/proc/}
    [ "$3" = "$1" ] && list_tree "${child%/stat}"
  done
}
signal_all() {
  reached=1
  for process in "-$leader" $tree; do
    kill -s "$1" -- "$process" 2> /dev/null && reached=0
  done
  return $reached
}
leader=$1
tree=$(list_tree "$1")
signal_all TERM || exit 0
for turn in 1 2 3 4 5 6 7 8; do
  signal_all 0 || exit 0
  sleep 0.125 2> /dev/null || sleep 1
done
signal_all KILL
exit 0
"""

_NEWLINE_ESCAPE: Final = r"\n"
_MARKER_DIGITS: Final = 20

END_CODE: Final = 113
"""Exit code of a command that tells its end otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteCommand:
    """A command as the device's login shell gets it.

    Attributes:
        text: what sshd or adbd hands to the shell.
        marker: what the command prints before anything of its own, followed by its
            process id in decimal digits and '@'; when it tells its end, also the last
            thing on standard error, followed by the exit code and '@'.
    """

    text: str
    marker: bytes


def wrap_command(
    argv: Sequence[str], *, tells_end: bool = False, max_bytes: int = _MAX_COMMAND_BYTES
) -> RemoteCommand:
    """Write a command so that any login shell runs exactly this argv.

    The login shell only replaces itself by `sh`; `sh` prints the marker, so that noise
    of start-up files before it can be told apart, then runs the program in a child, so
    that a signal that ends it becomes the exit code 128 + signal (sshd sends no exit
    code for a signal, and paramiko 5.1 drops the name it sends).

    Args:
        argv: the program and its arguments.
        tells_end: exit with `END_CODE` whatever the program's own exit code, which goes
            to standard error behind the marker: for a wire that ends with 0 when it is cut.
        max_bytes: what the wire takes.

    Raises:
        ValueError: the argv is empty or holds a NUL.
        DeviceError: the command is too long for the device.
    """
    if not argv:
        raise ValueError("expected a program, not an empty argv")
    marker = f"@edgepack:{secrets.token_hex(8)}:"
    # `exec` keeps names of shell builtins and `a=b` from meaning anything but programs.
    end = f'printf %s "{marker}$?@" >&2; exit {END_CODE}' if tells_end else "exit $?"
    script = (
        f'n=$(printf "{_NEWLINE_ESCAPE}x"); n=${{n%x}}; printf %s "{marker}$$@"; '
        f"(exec {quote_argv(argv)}); {end}"
    )
    text = f"exec sh -c {_quote_for_any_shell(script)}"
    if len(text.encode("utf-8", errors="surrogateescape")) > max_bytes:
        raise DeviceError(
            f"The command {show_argv(argv)} has {len(text)} characters; "
            f"a device takes at most {max_bytes} bytes.",
            remedy="Send long data on standard input or as a file.",
        )
    return RemoteCommand(text=text, marker=marker.encode())


def split_start(command: RemoteCommand, received: bytes) -> tuple[int, bytes] | None:
    """Give the process id behind the marker and what follows it; None until it is there.

    What start-up files of the login shell print comes before the marker. A shell that only
    repeats the command shows the marker too, but no number behind it.
    """
    marker = rb"%s(\d{1,%d})@" % (re.escape(command.marker), _MARKER_DIGITS)
    found = re.search(marker, received)
    return None if found is None else (int(found[1]), received[found.end() :])


def split_end(command: RemoteCommand, stderr: bytes) -> tuple[int | None, bytes]:
    """Give the exit code that a command told, or None, and its standard error without that."""
    found = re.search(rb"%s(\d{1,3})@" % re.escape(command.marker), stderr)
    if found is None:
        return None, stderr
    return int(found[1]), stderr[: found.start()] + stderr[found.end() :]


def upload_argv(
    target: str, *, partial: str, num_bytes: int, mode: int, unpack: str = ""
) -> tuple[str, ...]:
    """Give the argv that stores its standard input as a file and prints its sha256.

    Args:
        target: absolute path on the device.
        partial: where it lies until it is whole.
        num_bytes: its size.
        mode: its permissions.
        unpack: a program with its options that makes the file of the input; empty for none.
    """
    return (
        "sh", "-c", _UPLOAD_SCRIPT, "upload", target, partial, str(num_bytes), f"{mode:o}", unpack,
    )  # fmt: skip


def stop_argv(process: int) -> tuple[str, ...]:
    """Give the argv that ends a process and its group."""
    return ("sh", "-c", _STOP_SCRIPT, "stop", str(process))


def show_argv(argv: Sequence[str]) -> str:
    """Write an argv for a message: on one line, bounded."""
    text = " ".join(shlex.join(argv).split())
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - one line on a terminal


def quote_argv(argv: Sequence[str]) -> str:
    """Quote an argv for `sh`, on one line; newlines become `"$n"`, set by the caller."""
    return " ".join(_quote_argument(argument) for argument in argv)


def _quote_argument(argument: str) -> str:
    if "\0" in argument:
        raise ValueError("an argument holds a NUL character")
    return '"$n"'.join(shlex.quote(line) if line else "" for line in argument.split("\n")) or "''"


def _quote_for_any_shell(script: str) -> str:
    r"""Quote a one-line text so that sh, csh and fish all read it as it is.

    Within single quotes, csh expands '!' and ends at a newline, and fish takes '\\' as an
    escape; outside of quotes all three read a backslash and a special character as that
    character.
    """
    quoted = script.replace("\\", "\0").replace("'", r"'\''")
    quoted = quoted.replace("!", r"'\!'").replace("\0", r"'\\'")
    return f"'{quoted}'"
