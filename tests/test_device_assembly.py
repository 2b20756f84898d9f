"""Files put together on the device: from what its releases hold, and what is sent."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle
from edgepack.bundle.blobs import cut_blobs
from edgepack.bundle.manifest import MANIFEST_PATH, Blob
from edgepack.device.store.assembly import (
    MARK_DIGITS,
    Assembly,
    HeldRange,
    Run,
    plan_assembly,
)
from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import Layout
from edgepack.device.store.payload import PlacedFile, describe_file
from edgepack.device.store.placing import place_folder
from edgepack.device.wire.local import LocalDevice
from tests.fixtures.bundle import (
    HEAD_SHAPE,
    digits_model,
    retrained_digits_model,
    write_digits_bundle,
)
from tests.fixtures.faulty_device import FaultyDevice
from tests.test_device_resume import noise

MODEL = "model.tflite"
KIB = 1024


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "a.edgepack")


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with another last layer."""
    path = tmp_path_factory.mktemp("bundle") / "b.edgepack"
    return write_digits_bundle(path, model=retrained_digits_model(), version="2.0")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """A deploy root with the first release."""
    root = tmp_path_factory.mktemp("pushed") / "root"
    push_bundle(LocalDevice(), bundle, root=str(root))
    return root


@pytest.fixture
def root(tmp_path: Path, pushed: Path) -> Path:
    return shutil.copytree(pushed, tmp_path / "root", symlinks=True)


def assert_whole(folder: Path, bundle: Bundle) -> None:
    for record in bundle.files():
        assert (folder / record.path).read_bytes() == bundle.read(record.path)


def other_bytes(bundle: Bundle) -> int:
    """Give the bytes of the files that differ between the two bundles, the model excepted."""
    changed = {MANIFEST_PATH, "example.py"}
    return sum(each.num_bytes for each in bundle.files() if each.path in changed)


def model_bytes(bundle: Bundle) -> int:
    return next(each.num_bytes for each in bundle.files() if each.path == MODEL)


def test_a_retrained_head_sends_that(root: Path, retrained: Bundle) -> None:
    device = FaultyDevice(device=LocalDevice())
    told: list[tuple[int, int]] = []
    deployment = push_bundle(
        device, retrained, root=str(root), on_progress=lambda *each: told.append(each)
    )
    assert_whole(Path(deployment.path), retrained)
    head_bytes = 4 * HEAD_SHAPE[0] * HEAD_SHAPE[1]
    delta_bytes = deployment.sent_bytes - other_bytes(retrained)
    assert head_bytes <= delta_bytes <= head_bytes + KIB
    total_bytes = sum(each.num_bytes for each in retrained.files())
    assert deployment.skipped_bytes == total_bytes - deployment.sent_bytes
    # It goes with the small files: no turn more than without.
    assert [size for _, size in device.uploads] == [deployment.sent_bytes]
    assert told[0] == (0, deployment.sent_bytes)
    assert sum(count for count, _ in told) == deployment.sent_bytes
    assert not (Path(deployment.path) / MODEL).stat().st_mode & 0o222
    assert list((root / "staging").iterdir()) == []


def lie_about_a_range(release: Path) -> None:
    """Two blobs under each other's digests."""
    text = (release / MANIFEST_PATH).read_text()
    first, second = (each for each in digits_blobs() if each.num_bytes in {131_072, 18_432})
    swapped = text.replace(first.sha256, "-").replace(second.sha256, first.sha256)
    rewrite(release / MANIFEST_PATH, swapped.replace("-", second.sha256).encode())


def lie_about_a_place(release: Path) -> None:
    text = (release / MANIFEST_PATH).read_text()
    (blob,) = (each for each in digits_blobs() if each.num_bytes == 131_072)
    lie = replace(blob, offset=blob.offset + 1)
    rewrite(release / MANIFEST_PATH, text.replace(str(blob), str(lie)).encode())


def lie_beyond_the_end(release: Path) -> None:
    text = (release / MANIFEST_PATH).read_text()
    for blob in digits_blobs():
        text = text.replace(str(blob), str(replace(blob, offset=2**33)))
    rewrite(release / MANIFEST_PATH, text.encode())


def damage_the_model(release: Path) -> None:
    content = bytearray((release / MODEL).read_bytes())
    content[2000] ^= 1
    rewrite(release / MODEL, bytes(content))


def cut_the_model(release: Path) -> None:
    rewrite(release / MODEL, (release / MODEL).read_bytes()[:1000])


def lead_the_model_elsewhere(release: Path) -> None:
    (release / MODEL).unlink()
    (release / MODEL).symlink_to("/dev/zero")


def put_a_pipe_for_the_manifest(release: Path) -> None:
    (release / MANIFEST_PATH).unlink()
    os.mkfifo(release / MANIFEST_PATH)


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def digits_blobs() -> tuple[Blob, ...]:
    return cut_blobs(digits_model().data)


@pytest.mark.parametrize(
    "harm",
    [
        lie_about_a_range,
        lie_about_a_place,
        lie_beyond_the_end,
        damage_the_model,
        cut_the_model,
        lead_the_model_elsewhere,
        put_a_pipe_for_the_manifest,
    ],
)
def test_what_the_device_says_of_ranges_is_only_a_hint(
    root: Path, retrained: Bundle, harm: Callable[[Path], None]
) -> None:
    harm((root / "bundles/digits/current").resolve())
    deployment = push_bundle(LocalDevice(), retrained, root=str(root))
    assert_whole(Path(deployment.path), retrained)
    assert deployment.sent_bytes >= model_bytes(retrained)
    assert deployment.skipped_bytes >= 0


def test_a_device_that_puts_it_together_wrongly_gets_the_whole_file(
    tmp_path: Path, root: Path, retrained: Bundle
) -> None:
    (tmp_path / "dd").write_text("#!/bin/sh\necho 'dd: what now?' >&2\nexit 1\n")
    (tmp_path / "dd").chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    device = FaultyDevice(device=LocalDevice(), prefix=("env", path))
    told: list[tuple[int, int]] = []
    deployment = push_bundle(
        device, retrained, root=str(root), on_progress=lambda *each: told.append(each)
    )
    assert_whole(Path(deployment.path), retrained)
    assert deployment.sent_bytes == model_bytes(retrained) + device.uploads[0][1]
    assert sum(count for count, _ in told) == deployment.sent_bytes == told[-1][1]


def test_a_large_delta_goes_by_itself(tmp_path: Path) -> None:
    parts = [noise(size * KIB, seed=size) for size in (700, 400, 300)]
    layout = Layout(root=str(tmp_path))
    place(layout, "a" * 12, parts)
    parts[1] = noise(500 * KIB, seed=500)
    device = FaultyDevice(device=LocalDevice())
    sent_bytes = place(layout, "b" * 12, parts, device=device)
    assert [(Path(path).name, size) for path, size in device.uploads] == [
        ("manifest.json", sent_bytes - 500 * KIB),
        ("delta", 500 * KIB),
    ]


# Any contents, any state of the device.


def placed_model(parts: list[bytes]) -> PlacedFile:
    ends = list(accumulate(len(part) for part in parts))
    blobs = tuple(
        Blob(
            offset=end - len(part),
            num_bytes=len(part),
            sha256=hashlib.sha256(part).hexdigest(),
        )
        for part, end in zip(parts, ends, strict=True)
    )
    return replace(describe_file(MODEL, b"".join(parts)), blobs=blobs)


def place(
    layout: Layout,
    release: str,
    parts: list[bytes],
    *,
    told: list[str] | None = None,
    device: FaultyDevice | None = None,
) -> int:
    """Place a model with a manifest, and compare; give the bytes that were sent."""
    model = placed_model(parts)
    texts = [str(each) for each in model.blobs] if told is None else told
    manifest = "".join(f'  "{text}",\n' for text in texts).encode()
    folder = layout.release("m", release)
    transfer = place_folder(
        device or LocalDevice(),
        layout,
        folder=folder,
        files=[describe_file(MANIFEST_PATH, manifest), model],
        reuse_siblings=True,
    )
    assert Path(folder, MODEL).read_bytes() == b"".join(parts)
    assert Path(folder, MANIFEST_PATH).read_bytes() == manifest
    return transfer.sent_bytes


PARTS = [
    noise(size, seed=number)
    for number, size in enumerate((1, 700, 3000, 65_536, 65_535, 131_073, 262_144, 400_001))
]
models = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8)


@settings(max_examples=8, deadline=None)
@given(
    releases=st.lists(models, min_size=2, max_size=3),
    lies=st.lists(
        st.tuples(st.sampled_from(PARTS), st.integers(0, 2**32), st.integers(0, 2**32)),
        max_size=3,
    ),
    damage=st.none() | st.integers(0, 10**6),
)
def test_whatever_the_device_holds_the_release_is_whole(
    releases: list[list[bytes]], lies: list[tuple[bytes, int, int]], damage: int | None
) -> None:
    false = [f"{place} {size} {hashlib.sha256(part).hexdigest()}" for part, place, size in lies]
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(root=folder)
        for number, parts in enumerate(releases):
            release = f"{number:012x}"
            true = [str(each) for each in placed_model(parts).blobs]
            sent_bytes = place(layout, release, parts, told=[*false, *true])
            if number and not false and damage is None and parts in releases[:number]:
                assert sent_bytes == 0
            if damage is not None:
                model = Path(layout.release("m", release), MODEL)
                content = bytearray(model.read_bytes())
                content[damage % len(content)] ^= 1
                rewrite(model, bytes(content))


@given(models, st.lists(st.tuples(st.sampled_from(PARTS), st.integers(0, 10**6)), max_size=12))
def test_the_runs_of_a_plan_are_the_file(parts: list[bytes], held: list[tuple[bytes, int]]) -> None:
    """Read from a device that holds what it says, they give the file."""
    file = placed_model(parts)
    stores: dict[str, tuple[HeldRange, ...]] = {}
    contents: dict[tuple[str, int], bytes] = {}
    for number, (part, offset) in enumerate(held):
        mark = hashlib.sha256(part).hexdigest()[:MARK_DIGITS]
        here = HeldRange(path=f"/{number}", offset=offset, num_bytes=len(part))
        stores[mark] = (*stores.get(mark, ()), here)
        contents[(here.path, offset)] = part
    assembly = plan_assembly(file, stores)
    if assembly is None:
        there = {part for part, _ in held if len(part) > KIB}
        assert sum(len(part) for part in parts if part in there) < 0.1 * file.num_bytes
        return
    assert read_runs(assembly, contents) == file.load()


def read_runs(assembly: Assembly, contents: dict[tuple[str, int], bytes]) -> bytes:
    delta = assembly.delta.load()
    assert isinstance(delta, bytes)
    return b"".join(
        delta[run.offset : run.offset + run.num_bytes]
        if run.path is None
        else contents[(run.path, run.offset)]
        for run in assembly.runs
    )


def test_blobs_that_lie_together_are_one_run() -> None:
    file = placed_model([PARTS[4], PARTS[0], PARTS[5], PARTS[6]])
    held: dict[str, tuple[HeldRange, ...]] = {
        blob.sha256[:MARK_DIGITS]: (
            HeldRange(path="/other", offset=0, num_bytes=blob.num_bytes),
            HeldRange(path="/old", offset=1000 + blob.offset, num_bytes=blob.num_bytes),
        )
        for blob in file.blobs[1:]
    }
    assembly = plan_assembly(file, held)
    assert assembly is not None
    assert assembly.runs[0] == Run(path=None, offset=0, num_bytes=65_535 + 1)
    assert assembly.delta.num_bytes == 65_536
    held[file.blobs[0].sha256[:MARK_DIGITS]] = (
        HeldRange(path="/old", offset=1000, num_bytes=65_535),
    )
    assembly = plan_assembly(file, held)
    assert assembly is not None
    assert assembly.runs == (Run(path="/old", offset=1000, num_bytes=file.num_bytes),)


def test_no_more_ranges_than_pay_are_copied() -> None:
    parts = [noise(2 * KIB + number, seed=number) for number in range(200)]
    file = placed_model(parts)
    held = {
        blob.sha256[:MARK_DIGITS]: (
            HeldRange(path=f"/{number}", offset=0, num_bytes=blob.num_bytes),
        )
        for number, blob in enumerate(file.blobs)
    }
    assembly = plan_assembly(file, held)
    assert assembly is not None
    assert sum(run.path is not None for run in assembly.runs) == 64
    assert sum(run.path is None for run in assembly.runs) == 1
