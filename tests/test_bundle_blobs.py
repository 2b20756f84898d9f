"""Blobs: a model's file in stretches that the next release has too."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import verify_bundle
from edgepack.bundle.blobs import cut_blobs
from edgepack.bundle.container import write_container
from edgepack.bundle.manifest import MANIFEST_PATH, MAXIMUM_BLOBS, Blob
from edgepack.flatbuffer import find_buffers, read_flatbuffer, write_flatbuffer
from edgepack.model import Model
from tests.fixtures.bundle import (
    HEAD_SHAPE,
    digits_int8_model,
    digits_model,
    retrained_digits_model,
    write_digits_bundle,
)
from tests.test_device_resume import noise

LARGE_BYTES = 4096


def assert_tiled(data: bytes, blobs: tuple[Blob, ...]) -> None:
    assert [each.offset for each in blobs[1:]] == [e.offset + e.num_bytes for e in blobs[:-1]]
    assert blobs[0].offset == 0
    assert sum(each.num_bytes for each in blobs) == len(data)
    assert len(blobs) <= MAXIMUM_BLOBS


def changed_bytes(before: bytes, after: bytes) -> int:
    """Give the bytes of a file's blobs that the file before has not."""
    held = {each.sha256 for each in cut_blobs(before)}
    return sum(each.num_bytes for each in cut_blobs(after) if each.sha256 not in held)


def with_buffers(contents: list[bytes]) -> bytes:
    """Write the digits model with further buffers, as its metadata."""
    tree = read_flatbuffer(digits_model().data)
    tree.metadata = []
    for number, content in enumerate(contents):
        buffer: Any = schema.BufferT()
        buffer.data = np.frombuffer(content, dtype=np.uint8)
        tree.buffers.append(buffer)
        entry: Any = schema.MetadataT()
        entry.name, entry.buffer = f"note {number}", len(tree.buffers) - 1
        tree.metadata.append(entry)
    return write_flatbuffer(tree)


def test_large_tensors_stand_alone() -> None:
    data = digits_model().data
    blobs = cut_blobs(data)
    assert_tiled(data, blobs)
    large = {each for each in find_buffers(data) if each[1] >= LARGE_BYTES}
    assert len(large) == 2
    assert large <= {(each.offset, each.num_bytes) for each in blobs}


def test_a_small_model_has_none() -> None:
    assert cut_blobs(digits_int8_model().data) == ()


def test_a_retrained_head_changes_the_blob_it_is_in() -> None:
    before, after = digits_model().data, retrained_digits_model().data
    head_bytes = 4 * HEAD_SHAPE[0] * HEAD_SHAPE[1]
    assert head_bytes <= changed_bytes(before, after) <= head_bytes + 1024


def test_tensors_are_known_again_where_everything_moved() -> None:
    moved = with_buffers([b"a note, which comes before them"])
    known = {each.sha256: each.offset for each in cut_blobs(digits_model().data)}
    large = [each for each in cut_blobs(moved) if each.num_bytes in {131_072, 18_432}]
    assert len(large) == 2
    assert all(each.sha256 in known and known[each.sha256] != each.offset for each in large)


def test_small_tensors_behind_a_change_are_known_again() -> None:
    contents = [noise(500 + 701 * number % 2500, seed=number) for number in range(300)]
    before = with_buffers(contents)
    contents[150] = noise(777, seed=300)
    after = with_buffers(contents)
    assert len(after) != len(before)
    # Tables lead backwards to a place behind the change, so that those before it are others.
    assert changed_bytes(before, after) < 0.45 * len(after)


def test_there_are_never_too_many() -> None:
    data = with_buffers([noise(5000, seed=number) for number in range(400)])
    blobs = cut_blobs(data)
    assert_tiled(data, blobs)
    assert len(blobs) > MAXIMUM_BLOBS / 8


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), max_size=6))
def test_any_file_is_cut_alike_twice(buffers: list[tuple[int, bool]]) -> None:
    data = with_buffers([bytes(size) if is_zero else noise(size) for size, is_zero in buffers])
    blobs = cut_blobs(data)
    assert_tiled(data, blobs)
    assert blobs == cut_blobs(data)
    assert all(first.offset < second.offset for first, second in pairwise(blobs))


def test_verify_finds_a_blob_that_is_none(tmp_path: Path) -> None:
    bundle = write_digits_bundle(tmp_path / "a.edgepack")
    assert len(bundle.manifest.blobs) == 5
    assert verify_bundle(bundle.path) == ()
    lie = bundle.manifest.blobs[1].sha256
    manifest = bundle.read(MANIFEST_PATH).replace(lie.encode(), b"0" * 64)
    contents = [(each.path, bundle.read(each.path)) for each in bundle.files()]
    with (tmp_path / "b.edgepack").open("wb") as file:
        write_container(file, [(MANIFEST_PATH, manifest), *contents[1:]])
    assert verify_bundle(tmp_path / "b.edgepack") == (
        "blobs[1]: its sha256 is not that of its bytes",
    )


@pytest.mark.parametrize("model", [digits_model(), retrained_digits_model()])
def test_the_manifest_states_them(model: Model, tmp_path: Path) -> None:
    bundle = write_digits_bundle(tmp_path / "a.edgepack", model=model)
    assert bundle.manifest.blobs == cut_blobs(model.data)
