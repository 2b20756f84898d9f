"""A bundle is whole or not there, the same bytes each time, and any damage to it is found."""

import hashlib
import json
import os
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.bundle.archive import Bundle, open_bundle, verify_bundle
from edgepack.bundle.container import write_container
from edgepack.bundle.manifest import MANIFEST_PATH
from edgepack.errors import BundleError, UsageError
from edgepack.optimize.recipes.recipe_file import parse_recipe
from tests.fixtures.bundle import (
    FIDELITY,
    PARITY,
    PROVENANCE,
    built_in_profile,
    digits_golden,
    digits_int8_model,
    digits_model,
    write_digits_bundle,
)

DAMAGED = "Copy the bundle again, or pack it again; a bundle may not be edited or re-zipped."


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_digits_bundle(tmp_path_factory.mktemp("bundle") / "digits.edgepack")


def rewritten(bundle: Bundle, folder: Path, changes: dict[str, bytes | None]) -> Path:
    """Write the bundle's files with some changed, added or (None) left out."""
    contents = {record.path: bundle.read(record.path) for record in bundle.files()}
    for changed, data in changes.items():
        if data is None:
            del contents[changed]
        else:
            contents[changed] = data
    path = folder / "rewritten.edgepack"
    manifest = contents.pop(MANIFEST_PATH)
    with path.open("wb") as file:
        write_container(file, [(MANIFEST_PATH, manifest), *sorted(contents.items())])
    return path


def test_what_was_packed_is_read_back(bundle: Bundle) -> None:
    opened = open_bundle(bundle.path)
    assert opened == bundle
    manifest = opened.manifest
    assert (manifest.name, manifest.version) == ("digits", "1.0")
    assert manifest.target == built_in_profile()
    assert manifest.signature == digits_model().signature
    assert manifest.fidelity == FIDELITY
    assert manifest.parity == PARITY
    assert manifest.provenance == PROVENANCE
    assert manifest.class_names == "files/classes.txt"
    assert opened.read("model.tflite") == digits_model().data
    assert opened.read("files/classes.txt") == b"zero\none\n"
    assert opened.golden() == digits_golden()
    assert verify_bundle(bundle.path) == ()


def test_the_manifest_comes_first_and_every_file_is_recorded(bundle: Bundle) -> None:
    with zipfile.ZipFile(bundle.path) as archive:
        assert archive.namelist() == [
            "manifest.json",
            "example.py",
            "files/classes.txt",
            "golden/host-000.bin",
            "golden/input-000.bin",
            "golden/reference-000.bin",
            "model.tflite",
            "recipe.toml",
        ]
        for record in bundle.files():
            data = archive.read(record.path)
            assert hashlib.sha256(data).hexdigest() == record.sha256
            assert len(data) == record.num_bytes
        listed = json.loads(archive.read("manifest.json"))["files"]
    assert [each["path"] for each in listed] == [each.path for each in bundle.files()[1:]]


def test_a_release_is_named_after_the_whole_file(bundle: Bundle) -> None:
    assert bundle.sha256 == hashlib.sha256(bundle.path.read_bytes()).hexdigest()
    assert bundle.release == bundle.sha256[:12]
    assert bundle.num_bytes == bundle.path.stat().st_size


def test_the_same_inputs_give_the_same_bytes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOSTNAME", "elsewhere")
    before = os.umask(0o077)
    try:
        again = write_digits_bundle(tmp_path / "other-name.edgepack")
    finally:
        os.umask(before)
    assert again.path.read_bytes() == bundle.path.read_bytes()


def test_nothing_of_this_machine_stands_in_it(bundle: Bundle) -> None:
    data = bundle.path.read_bytes()
    for secret in (os.uname().nodename, str(Path.home()), str(bundle.path.parent)):
        if len(secret) > 5:
            assert secret.encode() not in data
    with zipfile.ZipFile(bundle.path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_optional_parts_can_be_left_out(tmp_path: Path) -> None:
    bare = write_digits_bundle(
        tmp_path / "bare.edgepack", parity=None, extra_files=None, class_names=None
    )
    assert bare.manifest.parity is None
    assert bare.manifest.class_names is None
    assert open_bundle(bare.path) == bare


# The damage: whatever is changed, added, left out or moved.


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(position=st.integers(min_value=0), bit=st.integers(0, 7), near=st.booleans())
def test_any_flipped_bit_is_found(
    bundle: Bundle, tmp_path: Path, position: int, bit: int, *, near: bool
) -> None:
    data = bytearray(bundle.path.read_bytes())
    manifest_bytes = bundle.entries[0].num_bytes
    data[position % (manifest_bytes if near else len(data))] ^= 1 << bit
    damaged = tmp_path / "damaged.edgepack"
    damaged.write_bytes(data)
    assert verify_bundle(damaged)
    with pytest.raises(BundleError):
        open_bundle(damaged)


def test_the_headers_are_covered_byte_by_byte(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.path.read_bytes()
    damaged = tmp_path / "damaged.edgepack"
    offsets = [entry.offset for entry in bundle.entries]
    covered = [at for offset in offsets for at in range(offset - 12, offset + 4)]
    covered += range(len(data) - 60, len(data))
    for at in covered:
        for bit in (0, 7):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            damaged.write_bytes(flipped)
            assert verify_bundle(damaged), (at, bit)


def test_a_missing_and_an_extra_file_are_both_named(bundle: Bundle, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path, {"files/classes.txt": None, "files/evil.sh": b"reboot"})
    assert verify_bundle(path) == (
        "'files/classes.txt': is missing",
        "'files/evil.sh': is not in the manifest",
    )
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert caught.value.message == (
        f"{path}: 2 faults\n"
        "  - 'files/classes.txt': is missing\n"
        "  - 'files/evil.sh': is not in the manifest"
    )
    assert caught.value.remedy == DAMAGED


def test_a_changed_file_with_right_checksums_is_named(bundle: Bundle, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path, {"model.tflite": digits_model().data + b"\0"})
    assert verify_bundle(path) == ("'model.tflite': its data are not those the manifest states",)


def with_right_hashes(bundle: Bundle, folder: Path, path: str, data: bytes) -> Path:
    """Write the bundle with one file changed, and its record in the manifest too."""
    table: Any = json.loads(bundle.read(MANIFEST_PATH))
    table.pop("blobs", None)  # which are those of the model that was there
    for record in table["files"]:
        if record["path"] == path:
            record |= {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
    manifest = f"{json.dumps(table, indent=1, sort_keys=True)}\n".encode()
    return rewritten(bundle, folder, {MANIFEST_PATH: manifest, path: data})


def test_another_model_under_right_hashes_is_found(bundle: Bundle, tmp_path: Path) -> None:
    path = with_right_hashes(bundle, tmp_path, "model.tflite", digits_int8_model().data)
    assert verify_bundle(path) == (
        "model.tflite: its inputs and outputs are not those the manifest states",
    )


def test_the_recipe_file_reproduces_the_manifests_recipe(bundle: Bundle) -> None:
    text = bundle.read("recipe.toml").decode()
    assert parse_recipe(text, name="other") == bundle.manifest.recipe


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'name = "float32"\nscheme = "int8"\n', "its recipe is not the one the manifest states"),
        (
            b'scheme = "int9"',
            "recipe 'float32': scheme: unknown value 'int9'; did you mean 'int8'?",
        ),
        (b"\xff", "expected UTF-8 text"),
    ],
)
def test_another_recipe_under_right_hashes_is_found(
    bundle: Bundle, tmp_path: Path, data: bytes, fault: str
) -> None:
    path = with_right_hashes(bundle, tmp_path, "recipe.toml", data)
    assert verify_bundle(path) == (f"recipe.toml: {fault}",)


def test_a_model_that_is_none_is_found(bundle: Bundle, tmp_path: Path) -> None:
    table: Any = json.loads(bundle.read(MANIFEST_PATH))
    del table["blobs"]
    for record in table["files"]:
        if record["path"] == "model.tflite":
            record |= {"sha256": hashlib.sha256(b"junk").hexdigest(), "num_bytes": 4}
    manifest = f"{json.dumps(table, indent=1, sort_keys=True)}\n".encode()
    path = rewritten(bundle, tmp_path, {MANIFEST_PATH: manifest, "model.tflite": b"junk"})
    (fault,) = verify_bundle(path)
    assert fault == (
        "model.tflite: expected a TFLite flatbuffer (identifier 'TFL3' at byte 4), but got "
        "4 bytes starting b'junk'"
    )


def test_the_order_of_entries_is_part_of_the_layout(bundle: Bundle, tmp_path: Path) -> None:
    contents = [(record.path, bundle.read(record.path)) for record in bundle.files()]
    path = tmp_path / "order.edgepack"
    with path.open("wb") as file:
        write_container(file, [contents[0], *reversed(contents[1:])])
    assert verify_bundle(path) == ("the entries are not in the manifest's order",)
    with path.open("wb") as file:
        write_container(file, contents[::-1])
    assert verify_bundle(path) == (
        "expected 'manifest.json' as the first entry, not 'recipe.toml'",
    )


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.edgepack"
    with path.open("wb") as file:
        write_container(file, [(MANIFEST_PATH, b" " * (4 * 2**20 + 1))])
    assert verify_bundle(path) == ("expected a manifest of at most 4194304 bytes, not 4194305",)


def test_a_bundle_zipped_again_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "again.edgepack"
    with (
        zipfile.ZipFile(bundle.path) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    faults = verify_bundle(path)
    assert (
        "entry 'model.tflite': is compressed; a bundle's entries are stored as they are" in faults
    )


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + b"\0" * 18, b"TFL3" * 50])
def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "not.edgepack"
    path.write_bytes(data)
    with pytest.raises(BundleError, match="expected a bundle") as caught:
        open_bundle(path)
    assert caught.value.remedy == "Give the .edgepack file that `edgepack pack` wrote."


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for read in (open_bundle, verify_bundle):
        with pytest.raises(BundleError) as caught:
            read(tmp_path / "none.edgepack")
        assert caught.value.message == (
            f"{tmp_path}/none.edgepack: cannot be read: No such file or directory"
        )
        with pytest.raises(BundleError, match="Is a directory"):
            read(tmp_path)


def test_a_bundle_replaced_while_open_is_noticed(tmp_path: Path) -> None:
    first = write_digits_bundle(tmp_path / "digits.edgepack")
    write_digits_bundle(first.path, extra_files={"classes.txt": b"eins\nzwei\n"})
    with pytest.raises(BundleError) as caught:
        first.read("model.tflite")
    assert caught.value.message == (
        f"{first.path}: 'model.tflite' changed since the bundle was opened"
    )


def test_a_file_that_is_not_in_the_bundle(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        bundle.read("../../etc/passwd")
    assert caught.value.message == (
        f"{bundle.path}: expected one of the bundle's files, not '../../etc/passwd'"
    )


# Writing: whole or not at all, and nothing of the user's is lost.


def test_a_new_bundle_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "digits.edgepack"
    write_digits_bundle(path)
    second = write_digits_bundle(path, version="2.0")
    assert open_bundle(path) == second
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"my only copy")
    with pytest.raises(BundleError) as caught:
        write_digits_bundle(path)
    assert caught.value.message == (
        f"{path}: expected a free name or an earlier bundle, but another file is there"
    )
    assert path.read_bytes() == b"my only copy"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_bundle(tmp_path: Path) -> None:
    path = tmp_path / "digits.edgepack"
    first = write_digits_bundle(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(BundleError) as caught:
            write_digits_bundle(path, version="2.0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.message == f"{path}: the bundle cannot be written: File too large"
    assert caught.value.remedy == ("Check the folder, its permissions and the space on its disk.")
    assert open_bundle(path) == first
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    digits_golden()
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_digits_bundle(tmp_path / "digits.edgepack")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none" / "digits.edgepack"
    with pytest.raises(BundleError) as caught:
        write_digits_bundle(path)
    assert caught.value.message == (
        f"{path}: the bundle cannot be written: No such file or directory"
    )
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BundleError, match="Not a directory"):
        write_digits_bundle(file / "digits.edgepack")


def test_bad_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "digits.edgepack"
    with pytest.raises(UsageError):
        write_digits_bundle(path, name="../digits")
    with pytest.raises(BundleError) as caught:
        write_digits_bundle(
            path, extra_files={"a b": b"", "../c": b"", "d": b"", "D": b""}, class_names=None
        )
    assert caught.value.message.startswith("files for the bundle: 3 faults\n")
    with pytest.raises(BundleError) as caught:
        write_digits_bundle(path, class_names="none.txt")
    assert caught.value.message == "expected the class names 'none.txt' among the extra files"
    assert list(tmp_path.iterdir()) == []


def test_a_repr_holds_no_data(bundle: Bundle) -> None:
    assert len(repr(bundle.golden())) < 200


def test_a_cut_out_of_the_middle_is_found(tmp_path: Path, bundle: Bundle) -> None:
    whole = bundle.path.read_bytes()
    path = tmp_path / "cut.edgepack"
    for length in range(0, len(whole), 4999):
        path.write_bytes(whole[:length] + whole[-22:])
        assert verify_bundle(path)
