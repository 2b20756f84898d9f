"""The cache gives back what was stored, whole and unchanged, or nothing."""

import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgepack.cache
import edgepack.errors
from edgepack.cache import Cache, cache_directory, digest_parts, source_digest
from edgepack.errors import CacheError

KEY = digest_parts("stage", model="abc", bits=8)
SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
NAMES = st.text(st.sampled_from("abcxyz-_."), min_size=1).filter(
    lambda name: name.strip(".") and name != "entry.json"
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(root=tmp_path / "results")


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "entry.json"
    }


class TestCacheDirectory:
    def test_honors_xdg_cache_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_directory() == tmp_path / "edgepack"

    def test_ignores_a_relative_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "here")
        assert cache_directory().is_absolute()
        assert cache_directory().name == "edgepack"

    def test_without_the_variable_lies_in_the_home(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_directory().is_relative_to(tmp_path)


class TestDigestParts:
    @given(st.dictionaries(st.text(min_size=1), SCALARS), st.text())
    def test_does_not_depend_on_the_order(
        self, parts: dict[str, str | float | None], stage: str
    ) -> None:
        backwards = dict(reversed(parts.items()))
        assert digest_parts(stage, **parts) == digest_parts(stage, **backwards)

    @given(SCALARS, SCALARS)
    def test_unlike_values_give_unlike_keys(
        self, a: str | float | None, b: str | float | None
    ) -> None:
        alike = type(a) is type(b) and a == b
        if isinstance(a, float) and isinstance(b, float):  # -0.0 is written with its sign
            alike = alike and math.copysign(1, a) == math.copysign(1, b)
        assert (digest_parts("s", x=a) == digest_parts("s", x=b)) is alike

    def test_types_do_not_collide(self) -> None:
        assert len({digest_parts("s", x=x) for x in (1, 1.0, True, "1", "true", None)}) == 6

    def test_the_stage_counts(self) -> None:
        assert digest_parts("a", x=1) != digest_parts("b", x=1)


class TestSourceDigest:
    def test_is_stable_in_any_order(self) -> None:
        assert source_digest(edgepack.cache, edgepack.errors) == source_digest(
            edgepack.errors, edgepack.cache
        )

    def test_changes_with_the_source(self, tmp_path: Path) -> None:
        module = ModuleType("stage")
        module.__file__ = str(tmp_path / "stage.py")
        (tmp_path / "stage.py").write_text("a = 1\n")
        before = source_digest(module)
        (tmp_path / "stage.py").write_text("a = 2\n")
        assert source_digest(module) != before

    def test_a_module_without_source_is_refused(self) -> None:
        with pytest.raises(CacheError, match="the source of nothing cannot be read"):
            source_digest(ModuleType("nothing"))


class TestCache:
    @given(files=st.dictionaries(NAMES, st.binary(max_size=64), max_size=4))
    def test_gives_back_what_was_stored(
        self, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        cache = Cache(root=tmp_path_factory.mktemp("cache"))
        assert cache.load(KEY) is None
        stored = cache.store(KEY, files)
        assert cache.load(KEY) == stored
        assert read_all(stored) == files

    def test_an_entry_survives_and_others_are_apart(self, cache: Cache) -> None:
        other = digest_parts("stage", model="abc", bits=4)
        cache.store(KEY, {"a/b": b"1"})
        cache.store(other, {"a/b": b"2"})
        again = Cache(root=cache.root)
        first, second = again.load(KEY), again.load(other)
        assert first
        assert second
        assert (first / "a/b").read_bytes() == b"1"
        assert (second / "a/b").read_bytes() == b"2"

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no index", "bad index"])
    def test_a_damaged_entry_is_not_served_and_is_replaced(self, cache: Cache, damage: str) -> None:
        folder = cache.store(KEY, {"model": b"weights", "other": b"x"})
        model, index = folder / "model", folder / "entry.json"
        match damage:
            case "flip":
                model.write_bytes(b"weighty")
            case "truncate":
                model.write_bytes(b"weig")
            case "remove":
                model.unlink()
            case "no index":
                index.unlink()
            case "bad index":
                index.write_text('{"model": []}')
        assert cache.load(KEY) is None
        assert read_all(cache.store(KEY, {"model": b"weights"})) == {"model": b"weights"}
        assert cache.load(KEY) == folder

    def test_an_intact_entry_is_kept(self, cache: Cache) -> None:
        folder = cache.store(KEY, {"model": b"first"})
        assert cache.store(KEY, {"model": b"second"}) == folder
        assert read_all(folder) == {"model": b"first"}

    @pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", "entry.json"])
    def test_a_name_outside_is_refused(self, cache: Cache, name: str) -> None:
        with pytest.raises(CacheError, match="expected a relative path inside"):
            cache.store(KEY, {name: b""})
        assert not cache.root.exists()

    @pytest.mark.parametrize("key", ["", "../../etc", "ABCDEF0123456789"])
    def test_a_key_that_is_no_digest_is_refused(self, cache: Cache, key: str) -> None:
        with pytest.raises(CacheError, match="expected a hex digest"):
            cache.load(key)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CacheError, match=r"cannot be kept in .*: Not a directory") as caught:
            Cache(root=tmp_path / "file").store(KEY, {"a": b""})
        assert "XDG_CACHE_HOME" in caught.value.remedy

    def test_a_kill_before_the_rename_leaves_no_entry(self, cache: Cache) -> None:
        program = (
            "import os, pathlib, signal, sys\n"
            "from edgepack.cache import Cache\n"
            "pathlib.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"Cache(root=pathlib.Path({str(cache.root)!r})).store({KEY!r}, {{'a': b'1'}})\n"
        )
        done = subprocess.run([sys.executable, "-c", program], check=False)
        assert done.returncode == -signal.SIGKILL
        left = list((cache.root / "incomplete").iterdir())
        assert len(left) == 1  # the kill came when everything was written
        assert cache.load(KEY) is None
        assert read_all(cache.store(KEY, {"a": b"1"})) == {"a": b"1"}

    def test_what_a_dead_process_left_is_removed_after_a_day(self, cache: Cache) -> None:
        old, new = (cache.root / "incomplete" / name for name in ("old", "new"))
        for path in (old, new):
            path.mkdir(parents=True)
        os.utime(old, (0, 0))
        cache.store(KEY, {"a": b"1"})
        assert not old.exists()
        assert new.exists()

    def test_many_processes_store_one_entry(self, cache: Cache) -> None:
        with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
            folders = set(pool.map(store_model, [cache] * 16))
        assert len(folders) == 1
        assert cache.load(KEY) == folders.pop()
        assert list((cache.root / "incomplete").iterdir()) == []


def store_model(cache: Cache) -> Path:
    return cache.store(KEY, {"model": bytes(100_000)})
