"""Every error has a slug, an exit code and a remedy, and survives a process boundary."""

import pickle

import pytest

from edgepack import errors
from edgepack.errors import EdgePackError, ExitCode, HostKeyError


def descendants(cls: type[EdgePackError]) -> list[type[EdgePackError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in descendants(child))]


CLASSES = [each for each in descendants(EdgePackError) if each.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_comes_whole_out_of_another_process(cls: type[EdgePackError]) -> None:
    error = cls("expected this, got that", remedy="Do so.")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is cls
    assert (again.message, again.remedy) == ("expected this, got that", "Do so.")
    assert str(again) == "expected this, got that\nDo so."


def test_slugs_are_distinct() -> None:
    kinds = [cls.kind for cls in CLASSES]
    assert len(set(kinds)) == len(kinds)


def test_exit_codes_are_those_documented() -> None:
    codes = {cls.kind: cls.exit_code for cls in CLASSES}
    assert {kind for kind, code in codes.items() if code is ExitCode.USAGE} == {
        "usage",
        "profile",
        "unknown_target",
        "recipe",
        "contract",
        "fleet",
    }
    assert {kind for kind, code in codes.items() if code is ExitCode.LIMIT} == {"limit"}
    assert {code.value for code in ExitCode} == {0, 1, 2, 3, 4, 130}


def test_an_error_without_a_remedy_reads_as_its_message() -> None:
    assert str(EdgePackError("expected this", remedy="")) == "expected this"


def test_a_changed_host_key_is_a_failure_to_connect() -> None:
    assert issubclass(HostKeyError, errors.ConnectError)
    assert issubclass(HostKeyError, errors.DeviceError)
