"""The container has one layout, and everything else is refused with its reason."""

import io
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.container import (
    MAXIMUM_ENTRIES,
    path_fault,
    path_faults,
    scan_container,
    write_container,
)
from edgepack.errors import BundleError

CONTENTS = [("manifest.json", b"{}\n"), ("files/a.txt", b"alpha"), ("model.tflite", b"\0" * 40)]

segments = st.from_regex(r"[a-z0-9_]([a-z0-9._+-]{0,6}[a-z0-9_])?", fullmatch=True)
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)


def encode(contents: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    write_container(file, contents)
    return file.getvalue()


def faults_of(data: bytes) -> tuple[str, ...]:
    """Give the faults, whether scanning could go to its end or not."""
    try:
        return scan_container(io.BytesIO(data)).faults
    except BundleError as error:
        return (error.message,)


def zipped(
    *entries: tuple[zipfile.ZipInfo | str, bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """Write entries as Python's own zipfile does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return file.getvalue()


@given(st.dictionaries(paths, st.binary(max_size=300), min_size=1, max_size=8))
def test_what_is_written_is_read_back_by_us_and_by_any_zip_program(
    contents: dict[str, bytes],
) -> None:
    listed = sorted(contents.items())
    if path_faults(contents):
        with pytest.raises(BundleError):
            encode(listed)
        return
    data = encode(listed)
    scan = scan_container(io.BytesIO(data))
    assert scan.faults == ()
    assert [entry.path for entry in scan.entries] == sorted(contents)
    for entry in scan.entries:
        assert data[entry.offset : entry.offset + entry.num_bytes] == contents[entry.path]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents


def test_the_layout_is_pinned() -> None:
    # These bytes may change only together with the bundle's format version.
    assert zlib.crc32(encode(CONTENTS)) == 0x8942D331
    assert len(encode(CONTENTS)) == 370


def test_every_single_flipped_bit_is_found() -> None:
    data = encode(CONTENTS)
    missed = []
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        if not faults_of(bytes(flipped)):
            missed.append(position)
    assert missed == []


def test_every_truncation_is_found() -> None:
    data = encode(CONTENTS)
    assert all(faults_of(data[:length]) for length in range(len(data)))


@given(st.binary(min_size=1, max_size=50))
def test_bytes_before_or_behind_are_found(more: bytes) -> None:
    data = encode(CONTENTS)
    assert faults_of(data + more)
    assert faults_of(more + data)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert faults_of(data)
    assert faults_of(b"PK\x03\x04" + data)


def test_not_an_archive() -> None:
    with pytest.raises(BundleError) as caught:
        scan_container(io.BytesIO(b"not a bundle"))
    assert caught.value.message == (
        "expected a bundle (a ZIP archive from its first byte), but got 12 bytes starting b'not '"
    )
    assert faults_of(b"") == (
        "expected a bundle (a ZIP archive from its first byte), but got an empty file",
    )


def test_appended_bytes_are_named() -> None:
    assert faults_of(encode(CONTENTS) + b"more") == (
        (
            "expected the archive's end record in the last 22 bytes: the bundle is cut short, "
            "damaged there, or something was appended to it"
        ),
    )


def test_a_bomb_is_refused_without_inflating_it() -> None:
    bomb = zipped(("manifest.json", b"\0" * 50_000_000), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    expected = "entry 'manifest.json': is compressed; a bundle's entries are stored as they are"
    assert expected in faults_of(bomb)


def test_a_lie_about_sizes_reads_no_more_than_the_file() -> None:
    data = bytearray(encode([("a", b"x")]))
    central = data.index(b"PK\x01\x02")
    struct.pack_into("<2L", data, central + 20, 2**31, 2**31)
    assert faults_of(bytes(data)) == (
        f"entry 'a': its {2**31} bytes reach beyond the entries' end",
    )


def test_an_encrypted_entry_is_refused() -> None:
    data = bytearray(encode([("a", b"x")]))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "entry 'a': is encrypted; a bundle's entries are not" in faults_of(bytes(data))


def test_a_link_is_refused() -> None:
    link = zipfile.ZipInfo("files/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert (
        "entry 'files/link': is a link or special file; a bundle holds plain files only"
        in faults_of(zipped((link, b"/etc/passwd")))
    )


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up",
        "files/../../up",
        "files\\a",
        "C:a",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "-rf",
        "a\nb",
        "a b",
        "über",
        "ends.",
        "",
        "$(reboot)",
    ],
)
def test_unsafe_paths_are_refused_on_both_ways(path: str) -> None:
    assert path_fault(path) is not None
    with pytest.raises(BundleError):
        encode([(path, b"")])
    info = zipfile.ZipInfo("placeholder")
    info.filename = path
    assert any("expected a relative path" in fault for fault in faults_of(zipped((info, b""))))


def test_a_path_may_not_be_long() -> None:
    assert path_fault("a" * 201) == "expected a path of at most 200 characters, not 201"
    assert path_fault("a" * 200) is None


def test_clashing_paths_are_all_named() -> None:
    assert path_faults(["files/a", "files/A", "files/a", "files/a/b", "../x"]) == (
        "entry 'files/A': clashes with 'files/a', which differs by case at most",
        "entry 'files/a': clashes with 'files/a', which differs by case at most",
        (
            "entry '../x': expected a relative path of letters, digits and '._+-' whose parts "
            "neither start with '.' or '-' nor end with '.', not '../x'"
        ),
        "entry 'files/a/b': lies below 'files/a', which is a file",
    )


def test_duplicates_in_an_archive_are_found() -> None:
    single = encode([("a", b"1"), ("b", b"2")])
    doubled = single.replace(b"b", b"a")
    assert "entry 'a': clashes with 'a', which differs by case at most" in faults_of(doubled)


def test_a_huge_count_is_refused_unread() -> None:
    data = bytearray(encode([("a", b"")]))
    struct.pack_into("<2H", data, len(data) - 22 + 8, 65535, 65535)
    assert faults_of(bytes(data)) == (f"expected at most {MAXIMUM_ENTRIES} entries, not 65535",)
    with pytest.raises(BundleError, match="expected at most 1000 files, not 1001"):
        encode([(f"files/{index}", b"") for index in range(MAXIMUM_ENTRIES + 1)])


def test_a_local_header_that_says_otherwise_is_found() -> None:
    data = encode([("a", b"x")])
    renamed = data.replace(b"a", b"b", 1)
    assert faults_of(renamed) == ("entry 'a': its two headers differ, or are not a bundle's",)


def test_hidden_bytes_between_entries_are_found() -> None:
    data = encode([("a", b"x"), ("b", b"y")])
    central = data.index(b"PK\x01\x02")
    (offset,) = struct.unpack_from("<L", data, len(data) - 6)
    hidden = data[:central] + b"hidden" + data[central:-6] + struct.pack("<LH", offset + 6, 0)
    assert faults_of(hidden) == ("6 bytes stand between the entries and their end",)


def test_an_overlapping_entry_is_found() -> None:
    data = encode([("a", b"x" * 100)])
    central = data.index(b"PK\x01\x02")
    record = data[central:-22]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(record), central, 0)
    overlapping = data[:central] + record + record.replace(b"a", b"b") + end
    assert "entry 'b': its 100 bytes reach beyond the entries' end" in faults_of(overlapping)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_another_program_is_not_a_bundle(compression: int) -> None:
    other = zipped(*CONTENTS, compression=compression)
    assert "entry 'manifest.json': its header is not as a bundle's is" in faults_of(other)
