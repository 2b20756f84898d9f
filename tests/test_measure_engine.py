"""What a runner or a file says of the engine, read as untrusted."""

from dataclasses import asdict

import pytest

from edgepack._fields import Fields
from edgepack.measure.engine import EngineFacts, read_engine

NATIVE = EngineFacts(
    name="tensorflow-lite-c",
    version="2.17.1",
    num_threads=4,
    xnnpack=False,
    python=None,
    sha256="ab" * 32,
    runner="native",
    has_xnnpack=False,
)


def test_it_is_read_as_it_was_written() -> None:
    fields = Fields(asdict(NATIVE))
    assert read_engine(fields) == NATIVE
    assert fields.faults == []


def test_an_older_file_names_no_runner() -> None:
    table = {
        "name": "ai-edge-litert",
        "version": "2.3.0",
        "num_threads": 1,
        "xnnpack": True,
        "python": "3.11.2",
        "sha256": None,
    }
    fields = Fields(table)
    engine = read_engine(fields)
    assert fields.faults == []
    assert (engine.runner, engine.has_xnnpack) == ("python", None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"runner": "swift"}, "runner: expected python or native, not 'swift'"),
        ({"runner": "python"}, "python: missing; expected a text"),
        ({"num_threads": 0}, "num_threads: expected at least 1, not 0"),
        ({"has_xnnpack": "no"}, "has_xnnpack: expected true or false, not a text ('no')"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], fault: str) -> None:
    fields = Fields(asdict(NATIVE) | change)
    read_engine(fields)
    assert len(fields.faults) == 1
    assert fields.faults[0].startswith(fault)
