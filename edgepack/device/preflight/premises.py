"""What a deployment finds on a device: folders it may write to, tools, what is there already.

One POSIX-sh script tries things out in a folder of its own, which it removes, and goes over the
wire together with the question what the device is; pure functions read its answer. The text is
untrusted, and what cannot be told is None.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgepack.device.store.layout import resolve_root
from edgepack.device.store.signers import PRINT_SIGNERS, SignersFile, parse_signers
from edgepack.device.survey import probe
from edgepack.device.survey.facts import DeviceFacts, read_answer
from edgepack.device.wire.hashing import SHA256_FUNCTION
from edgepack.device.wire.sections import MAX_TEXT, clean_text, parse_count, split_sections
from edgepack.device.wire.transport import Device

_TIMEOUT_SECONDS: Final = 180.0  # some 80 processes, on the slowest boards too
_MAX_OUTPUT_BYTES: Final = 2**20
_MAX_BYTES: Final = 2**60
# What the scripts of layout, placing, staging and deploy call.
_TOOLS: Final = (
    *("cat", "chmod", "cp", "cut", "df", "find", "grep", "head", "ln", "ls", "mkdir", "mv"),
    *("readlink", "rm", "sed", "tail", "wc"),
)

# `$1` the deploy root; `$3` not empty: the folder for temporary files is tried too. The root's
# nearest folder that exists is tried, since it may be yet to be made. `exit 42` tells a program
# that ran from a shell that could not start it. A full disk may take a file's name and not its
# bytes, so the written file is looked at.
PREMISES_SCRIPT: Final = rf"""
export LC_ALL=C
section() {{ printf '\n@@%s\n' "$1"; }}
has() {{ command -v "$1" >/dev/null 2>&1; }}
section user; id -u 2>/dev/null
section missing; for name in {" ".join(_TOOLS)}; do has "$name" || echo "$name"; done
{SHA256_FUNCTION}
section hash; echo "$hash_with"
section mounts; head -c 65536 /proc/mounts 2>/dev/null
trial=
trap '[ -z "$trial" ] || rm -rf -- "$trial"' EXIT
trap 'exit 130' HUP INT TERM PIPE
try_folder() {{
  section "$1"
  printf 'folder %s\n' "$2"
  printf 'real %s\n' "$(cd -- "$2" 2>/dev/null && pwd -P)"
  trial=$2/.edgepack-trial.$$
  if said=$(mkdir -- "$trial" 2>&1); then
    interpreter=$(command -v sh)
    {{ printf '#!%s\nexit 42\n' "$interpreter" >"$trial/program"; }} 2>/dev/null
    if [ -s "$trial/program" ]; then
      echo write yes
      chmod 700 "$trial/program" 2>/dev/null
      ("$trial/program") >/dev/null 2>&1
      [ $? = 42 ] && echo execute yes || echo execute no
    else echo write no No space left on device; fi
    ln -s program "$trial/link" 2>/dev/null && echo link yes || echo link no
    rm -rf -- "$trial"
  else printf 'write no %s\n' "$said" | head -n 1; fi
  section "$1_files"; df -Pi "$2" 2>/dev/null
}}
folder=$1
while [ ! -d "$folder" ] && [ -n "$folder" ]; do folder=${{folder%/*}}; done
try_folder root "${{folder:-/}}"
if [ -n "$3" ]; then
  try_folder temporary "${{TMPDIR:-/tmp}}"
  section temporary_disk; df -Pk "${{TMPDIR:-/tmp}}" 2>/dev/null
fi
section staged; [ -d "$1/staging" ] && du -sk "$1/staging" 2>/dev/null
section runtimes; [ -d "$1/runtimes" ] && ls -1 "$1/runtimes" 2>/dev/null | head -n 256
section releases
[ -d "$1/bundles" ] && (cd -- "$1/bundles" && ls -1d -- */releases/* 2>/dev/null | head -n 500)
section signers{PRINT_SIGNERS}"""

_MOUNT_FIELDS: Final = 4
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A mounted file system, as the kernel lists it.

    Attributes:
        point: folder it is mounted at.
        source: what is mounted there.
        kind: of file system, such as `ext4`.
        options: such as `noexec`.
    """

    point: str
    source: str
    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder as it was tried out.

    Attributes:
        folder: that was tried: the nearest one that exists.
        is_writable: whether a file could be made there.
        refusal: what the device said when not.
        can_execute: whether a program that lies there runs.
        can_link: whether symbolic links can be made there.
        free_bytes: room.
        free_files: how many more files its file system takes.
        mount: the file system it lies on.
    """

    folder: str
    is_writable: bool | None = None
    refusal: str = ""
    can_execute: bool | None = None
    can_link: bool | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    mount: Mount | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Premises:
    """What a deployment finds on a device.

    Attributes:
        user_id: of the login; 0 is root.
        missing_tools: programs that are needed and not there.
        hash_tool: what computes sha256; None for nothing.
        root: the deploy root.
        temporary: the folder for temporary files; None when it was not tried.
        staged_bytes: of transfers that were cut, which the next one goes on with or removes.
        runtimes: folders of installed runtimes.
        releases: bundle's name and release of each that is there.
        signers: the list of who may sign what is deployed there; None where it has none.
    """

    user_id: int | None
    missing_tools: tuple[str, ...]
    hash_tool: str | None
    root: Place
    temporary: Place | None
    staged_bytes: int
    runtimes: tuple[str, ...]
    releases: tuple[tuple[str, str], ...]
    signers: SignersFile | None = None


def survey(device: Device, root: str, *, is_thorough: bool = False) -> tuple[DeviceFacts, Premises]:
    """Ask a device what it is and what a deployment finds there, in one round trip.

    Args:
        device: a connected device.
        root: the deploy root, which may begin with `~`; it is not made.
        is_thorough: whether to try the folder for temporary files too, which nothing here uses.

    Raises:
        DeviceError: it has no POSIX shell, or answers with something else.
    """
    absolute = resolve_root(device, root)
    # dropbear closes the connection at a command of more than 9000 bytes (2022.83, MAX_CMD_LEN).
    lines = (PREMISES_SCRIPT + probe.FACTS_SCRIPT).splitlines()
    script = "\n".join(line.strip() for line in lines)
    result = device.run(
        [
            "sh",
            "-c",
            script,
            "edgepack",
            absolute,
            probe.PYTHON_PROBE,
            *(["all"] if is_thorough else []),
        ],
        timeout_seconds=_TIMEOUT_SECONDS,
        max_output_bytes=_MAX_OUTPUT_BYTES,
    )
    return read_answer(result.text, root=absolute), read_premises(result.text)


def read_premises(text: str) -> Premises:
    """Read what `PREMISES_SCRIPT` and `probe.FACTS_SCRIPT` printed.

    What they did not say is None or empty.
    """
    sections = split_sections(text)
    mounts = _parse_mounts(sections.get("mounts", ()))
    staged = probe.first_line(sections, "staged").split(maxsplit=1)
    staged_kib = parse_count(staged[0], maximum=_MAX_BYTES // 1024) if staged else None
    releases = (
        re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,63})/releases/([0-9a-f]{12})", line)
        for line in sections.get("releases", ())
    )
    missing = set(sections.get("missing", ()))
    return Premises(
        user_id=parse_count(probe.first_line(sections, "user"), maximum=2**32),
        missing_tools=tuple(name for name in _TOOLS if name in missing),
        hash_tool=_parse_hash_tool(probe.first_line(sections, "hash")),
        root=_parse_place(sections, "root", mounts, disk="disk"),
        temporary=_parse_place(sections, "temporary", mounts, disk="temporary_disk")
        if "temporary" in sections
        else None,
        staged_bytes=(staged_kib or 0) * 1024,
        runtimes=tuple(clean_text(line) for line in sections.get("runtimes", ())),
        releases=tuple((match[1], match[2]) for match in releases if match),
        signers=parse_signers(sections.get("signers", ())),
    )


def _parse_place(
    sections: Mapping[str, tuple[str, ...]], name: str, mounts: tuple[Mount, ...], *, disk: str
) -> Place:
    pairs = dict(line.partition(" ")[::2] for line in sections.get(name, ()))
    folder = clean_text(pairs.get("folder", ""), limit=1024)
    write, _, refusal = pairs.get("write", "").partition(" ")
    yes_or_no = {"yes": True, "no": False}
    return Place(
        folder=folder,
        is_writable=yes_or_no.get(write),
        refusal=_last_words(refusal),
        can_execute=yes_or_no.get(pairs.get("execute", "")),
        can_link=yes_or_no.get(pairs.get("link", "")),
        free_bytes=probe.parse_free(sections.get(disk, ())),
        free_files=_parse_free_files(sections.get(f"{name}_files", ())),
        # Where links lead: they may leave the file system that their own path lies on.
        mount=find_mount(clean_text(pairs.get("real", ""), limit=1024) or folder, mounts),
    )


def _parse_hash_tool(text: str) -> str | None:
    words = text.removeprefix("hash_with_").split()
    return clean_text(words[0], limit=20) if words and words[0] != "none" else None


def _last_words(text: str) -> str:
    """Give the system's own words after the program's: `mkdir: …: Read-only file system`."""
    return clean_text(text.rpartition(": ")[2], limit=MAX_TEXT)


def _parse_free_files(lines: tuple[str, ...]) -> int | None:
    """Read `df -Pi`; a file system without such a limit counts none used of none."""
    match = re.search(r"\s(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+\d{1,3}%", " ".join(lines[1:]))
    return int(match[3]) if match and int(match[1]) > 0 else None


def _parse_mounts(lines: tuple[str, ...]) -> tuple[Mount, ...]:
    mounts: list[Mount] = []
    for line in lines:
        words = line.split(" ")
        if len(words) < _MOUNT_FIELDS or not words[1].startswith("/"):
            continue
        source, point, kind, options = (clean_text(word, limit=1024) for word in words[:4])
        mounts.append(
            Mount(
                point=clean_text(
                    _OCTAL.sub(lambda match: chr(int(match[1], 8)), point), limit=1024
                ),
                source=source,
                kind=kind,
                options=tuple(options.split(",")),
            )
        )
    return tuple(mounts)


def find_mount(folder: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Give the file system a folder lies on: the longest point above it, the last one of those."""
    found = [
        (len(mount.point), index, mount)
        for index, mount in enumerate(mounts)
        if folder == mount.point or folder.startswith(f"{mount.point.rstrip('/')}/")
    ]
    return max(found, key=lambda each: each[:2])[2] if found else None
