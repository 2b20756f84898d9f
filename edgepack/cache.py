"""Content-addressed results under the user's cache directory.

A stage's result is keyed by everything that decides it: the digests of its inputs, its
parameters, the stage's own source and the library versions. An entry is a folder that
appears under its key in one rename, complete or not at all, and is checked by hash
each time it is served; a damaged one counts as absent and is replaced by the next store.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Final

import platformdirs

from edgepack.errors import CacheError

_INDEX: Final = "entry.json"
_MAXIMUM_INDEX_BYTES: Final = 1 << 20
_KEY: Final = re.compile(r"[0-9a-f]{16,128}")
_TEMPORARY: Final = "incomplete"
# No store takes a day: an older temporary folder was left by a process that died.
_ABANDONED_SECONDS: Final = 24 * 3600
_ATTEMPTS: Final = 8


def cache_directory() -> Path:
    """Give the folder for everything EdgePack can make again: `$XDG_CACHE_HOME/edgepack`.

    Without the variable it is the platform's own place (`~/.cache/edgepack`, on macOS
    `~/Library/Caches/edgepack`). A relative value is ignored, as the XDG Base Directory
    Specification 0.8 asks. The folder need not exist yet.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured) / "edgepack"
    return Path(platformdirs.user_cache_dir("edgepack", appauthor=False))


def digest_parts(stage: str, /, **parts: str | float | bool | None) -> str:
    """Give the hex key of a stage's result from the parts that decide it.

    Values of different types never collide: 1, 1.0, true and "1" give different keys.
    """
    text = json.dumps([stage, parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def source_digest(*modules: ModuleType) -> str:
    """Give the hex digest of modules' own source, in any order; a package counts as a whole.

    Raises:
        CacheError: a module has no readable source file.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_list_sources(modules)):
        try:
            source = path.read_bytes()
        except OSError as error:
            raise CacheError(
                f"the source of {name} cannot be read: {error.strerror or error}",
                remedy="Install EdgePack again.",
            ) from error
        digest.update(f"{name}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


def _list_sources(modules: Iterable[ModuleType]) -> Iterator[tuple[str, Path]]:
    for module in modules:
        path = Path(getattr(module, "__file__", None) or "")
        if not hasattr(module, "__path__"):
            yield module.__name__, path
            continue
        for each in path.parent.rglob("*.py"):
            yield f"{module.__name__}/{each.relative_to(path.parent).as_posix()}", each


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """A folder of results, shared by any number of processes.

    Attributes:
        root: where the entries lie; created by the first store.
    """

    root: Path

    def load(self, key: str) -> Path | None:
        """Give the folder of a complete, unchanged entry, or None."""
        folder = self._folder(key)
        return folder if _is_intact(folder) else None

    def store(self, key: str, files: Mapping[str, bytes]) -> Path:
        """Put files under a key and give their folder.

        Names are relative POSIX paths. An intact entry already there is kept: same key,
        same result. Nothing is left under the key when this fails or is killed.

        Raises:
            CacheError: a name leaves the entry's folder, or the files cannot be written.
        """
        folder = self._folder(key)
        for name in files:
            _check_name(name)
        try:
            with self._temporary() as temporary:
                _write_entry(temporary, files)
                return self._place(temporary, folder)
        except OSError as error:
            raise CacheError(
                f"a result cannot be kept in {self.root}: {error.strerror or error}",
                remedy="Free some space or give the folder write permission, or name another "
                "one with XDG_CACHE_HOME.",
            ) from error

    def _folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise CacheError(
                f"expected a hex digest as the key of a result, not {key!r}",
                remedy="Make the key with digest_parts.",
            )
        return self.root / key[:2] / key

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        parent = self.root / _TEMPORARY
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        temporary = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _place(self, temporary: Path, folder: Path) -> Path:
        folder.parent.mkdir(parents=True, exist_ok=True)
        entry = temporary / "entry"
        for attempt in range(_ATTEMPTS):
            if _is_intact(folder):  # made by another process meanwhile
                return folder
            # A damaged entry stands in the way, and rename(2) replaces only empty folders.
            with contextlib.suppress(FileNotFoundError):
                folder.rename(temporary / f"damaged-{attempt}")
            try:
                entry.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                continue  # another process was quicker
            _sync(folder.parent)
            return folder
        raise CacheError(
            f"a result cannot be kept in {folder}: other processes keep replacing it",
            remedy="End the other EdgePack processes and try again.",
        )


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or path == PurePosixPath(_INDEX):
        raise CacheError(
            f"expected a relative path inside a result's folder, not {name!r}",
            remedy=f"Use a plain file name other than {_INDEX}.",
        )


def _write_entry(temporary: Path, files: Mapping[str, bytes]) -> None:
    entry = temporary / "entry"
    entry.mkdir()
    index = {}
    for name, data in files.items():
        path = entry / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
        index[name] = [hashlib.sha256(data).hexdigest(), len(data)]
    _write(entry / _INDEX, json.dumps(index, sort_keys=True).encode())
    for folder in {entry, *(path for path in entry.rglob("*") if path.is_dir())}:
        _sync(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_intact(folder: Path) -> bool:
    """Tell whether every file the entry's index names is there with its size and hash."""
    try:
        with (folder / _INDEX).open("rb") as file:
            index = json.loads(file.read(_MAXIMUM_INDEX_BYTES))
        return isinstance(index, dict) and all(
            _is_file(folder / name, record) for name, record in index.items()
        )
    except (OSError, ValueError):  # absent, unreadable, or not JSON in UTF-8
        return False


def _is_file(path: Path, record: object) -> bool:
    match record:
        case [str() as sha256, int() as num_bytes] if num_bytes == path.stat().st_size:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        case _:
            return False


def _remove_abandoned(parent: Path) -> None:
    horizon = time.time() - _ABANDONED_SECONDS
    for path in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if path.stat().st_mtime < horizon:
                shutil.rmtree(path, ignore_errors=True)
