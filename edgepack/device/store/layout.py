"""Where things stand on a device, and the shell commands that touch them.

    ROOT/bundles/NAME/releases/<12 hex>/…   complete, verified releases; never half of one
    ROOT/bundles/NAME/current               a link to one of them, switched atomically
    ROOT/bundles/NAME/history               the releases that were current, one a line
    ROOT/models/<64 hex>/…                  bare models and runners, by content
    ROOT/runtimes/<engine>-<version>-<tag>-<12 hex>/
    ROOT/staging/<stem>.<nonce>/            what is on its way; swept once its host is gone
    ROOT/lock/<number>                      who uses the device; ends by itself (see `lease`)
    ROOT/allowed_signers                    who may sign what is deployed; the owner's, never ours

Nothing is damaged when two hosts cross all the same: each push writes below its own staging
name, complete folders appear by one rename, and the last rename of `current` wins.
"""

import re
from dataclasses import dataclass
from typing import Final

from edgepack.device.wire.address import subject
from edgepack.device.wire.sections import clean_text
from edgepack.device.wire.transport import CommandResult, Device
from edgepack.errors import DeployError, DeviceError, UsageError

SIGNERS_NAME: Final = "allowed_signers"

STEP_SECONDS: Final = 60.0
"""Time limit of a command that does little."""

STALL_SECONDS: Final = 30.0
"""How long an upload may make no progress before the link counts as dead."""

_SLOWEST_DISK_BYTES_PER_SECOND: Final = 4 * 2**20
_ROOT: Final = re.compile(r"(~|)(/[A-Za-z0-9._-]+)+")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_RELEASE: Final = re.compile(r"[0-9a-f]{12}")
_SEGMENT: Final = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")
_MAX_PATH_CHARACTERS: Final = 1024

# adb's user has the home `/` and may not write there; what is written and run by it stands in
# /data/local/tmp (Android).
_HOME: Final = """
[ "$HOME" = / ] && [ -w /data/local/tmp ] && HOME=/data/local/tmp
printf %s "$HOME"
"""

# Renames without ever moving *into* a folder or a link to one: GNU and BusyBox know `-T`,
# macOS and the BSDs `-h`; Python's os.replace is rename(2) itself. toybox (0.8.9) knows `-T` and
# refuses links to folders all the same, but its `ln -sfn` makes a link beside and renames it.
RENAME_FUNCTION: Final = """
rename() {
  said=$(mv -fT -- "$1" "$2" 2>&1) && return 0
  if [ -L "$1" ] && [ -L "$2" ]; then
    case $(ln --version 2>&1) in
    toybox*) ln -sfn -- "$(readlink "$1")" "$2" && rm -f -- "$1"; return ;;
    esac
  fi
  case $said in *option*) ;; *) printf '%s\\n' "$said" >&2; return 1 ;; esac
  if command -v python3 >/dev/null 2>&1; then
    python3 -I -c 'import os,sys; os.replace(sys.argv[1], sys.argv[2])' "$1" "$2" && return 0
  fi
  if [ -d "$2" ] && [ ! -L "$2" ]; then echo 'File exists' >&2; return 1; fi
  mv -fh "$1" "$2"
}
"""

# `free_kib FOLDER` prints the room there. A long device name may stand on a line of its own.
FREE_FUNCTION: Final = """
free_kib() {
  df -Pk "$1" 2>/dev/null | {
    read -r _; read -r _ blocks _ free _
    [ -n "$blocks" ] || read -r _ _ free _
    printf '%s\\n' "$free"
  }
}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Paths below one deploy root.

    Attributes:
        root: absolute path on the device, as `resolve_root` gave it.
    """

    root: str

    @property
    def staging(self) -> str:
        """Folder of everything on its way."""
        return f"{self.root}/staging"

    @property
    def lock(self) -> str:
        """Folder that says who holds the device."""
        return f"{self.root}/lock"

    @property
    def models(self) -> str:
        """Folder of bare models and runners."""
        return f"{self.root}/models"

    @property
    def runtimes(self) -> str:
        """Folder of provisioned runtimes."""
        return f"{self.root}/runtimes"

    @property
    def bundles(self) -> str:
        """Folder of all deployed bundles."""
        return f"{self.root}/bundles"

    def bundle(self, name: str) -> str:
        """Folder of one bundle's releases.

        Raises:
            DeployError: the name could leave the root.
        """
        if not _NAME.fullmatch(name):
            raise DeployError(
                f"a bundle's name: expected letters, digits, '.', '_' and '-', not {name!r}",
                remedy="Pack the model again with `--name`.",
            )
        return f"{self.bundles}/{name}"

    def releases(self, name: str) -> str:
        """Folder that holds each release of a bundle."""
        return f"{self.bundle(name)}/releases"

    def release(self, name: str, release: str) -> str:
        """Folder of one release.

        Raises:
            DeployError: not a release's name.
        """
        if not is_release(release):
            raise DeployError(
                f"a release: expected 12 hex digits, not {release!r}",
                remedy="List the releases on the device with `edgepack releases DEVICE`.",
            )
        return f"{self.releases(name)}/{release}"

    def current(self, name: str) -> str:
        """Link to the release in use."""
        return f"{self.bundle(name)}/current"


def is_release(text: str) -> bool:
    """Tell whether a text names a release."""
    return bool(_RELEASE.fullmatch(text))


def is_confined(path: str) -> bool:
    """Tell whether a relative POSIX path stays below its folder and fits one line."""
    return len(path) <= _MAX_PATH_CHARACTERS and all(
        segment not in {".", ".."} and _SEGMENT.fullmatch(segment) for segment in path.split("/")
    )


def resolve_root(device: Device, root: str) -> str:
    """Give the absolute path of a deploy root; `~` is the home of the login on the device.

    Raises:
        UsageError: not a plain absolute or home path.
        DeviceError: the device does not say where its home is.
    """
    if not _ROOT.fullmatch(root) or not is_confined(root.removeprefix("~")[1:]):
        raise UsageError(
            f"deploy root: expected an absolute path or one below '~' of letters, digits, "
            f"'.', '_' and '-', not {root!r}",
            remedy="Give `--root ~/.edgepack`, or mend [deploy] root in the target profile.",
        )
    if not root.startswith("~"):
        return root
    result = device.run(["sh", "-c", _HOME], timeout_seconds=STEP_SECONDS)
    home = result.text.rstrip("/")
    if result.exit_code or not home.startswith("/") or not is_confined(home[1:]):
        raise DeviceError(
            f"the device's home folder: expected an absolute path, got {clean_text(home)!r}",
            remedy="Give the deploy root as an absolute path: `--root /opt/edgepack`.",
        )
    return home + root[1:]


def disk_seconds(num_bytes: int) -> float:
    """Give the time limit of a step that reads or writes so much on the device."""
    return STEP_SECONDS + num_bytes / _SLOWEST_DISK_BYTES_PER_SECOND


def run_step(
    device: Device,
    script: str,
    *arguments: str,
    action: str,
    error: type[DeviceError] = DeployError,
    stdin: bytes = b"",
    timeout_seconds: float = STEP_SECONDS,
) -> CommandResult:
    """Run a POSIX-sh script on the device; a failure becomes one clear error.

    Args:
        device: a connected device.
        script: its text; `$1` and on are the arguments.
        arguments: passed as they are.
        action: what is being done, as in "could not ACTION".
        error: the class to raise.
        stdin: what the script reads.
        timeout_seconds: limit for all of it.
    """
    result = device.run(
        ["sh", "-c", script, "edgepack", *arguments],
        timeout_seconds=timeout_seconds,
        stdin=stdin,
    )
    if result.exit_code:
        raise explain_failure(result, action=action, where=device.name, error=error)
    return result


_REMEDIES: Final = (
    ("no space left", "Free some room on the device, or give another `--root`."),
    ("disk quota exceeded", "Free some room on the device, or give another `--root`."),
    ("read-only file system", "Give a `--root` on a file system that can be written to."),
    (
        "permission denied",
        "Give a `--root` that this login may write to, or change the owner on the device.",
    ),
    ("not a directory", "Something else stands where a folder should be; give another `--root`."),
)


def explain_failure(
    result: CommandResult, *, action: str, where: str, error: type[DeviceError]
) -> DeviceError:
    """Make the error for a failed step: what the device said, and what to do."""
    said = clean_text(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "")
    remedy = next(
        (text for sign, text in _REMEDIES if sign in result.stderr.lower()),
        "Log in and look at the deploy root; what was being written there is not in use.",
    )
    reason = said or f"exit code {result.exit_code}"
    return error(f"{subject(where)} could not {action}: {reason}", remedy=remedy)
