"""What all tests share: the fixtures' modules, order of running, and what a skip means."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("edgepack", deadline=None)
settings.load_profile("edgepack")

# A script's job in the background ignores Ctrl-C, and so would all programs that tests start there.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    f"tests.fixtures.{room}"
    for room in (
        "adbd",
        "android",
        "boards",
        "browser",
        "commands",
        "importers",
        "keras_sources",
        "models",
        "pytorch",
        "onnx_batch",
        "real_models",
        "runners",
        "sensitivity",
        "sshd",
        "signing",
        "toolchains",
    )
]

# Cheap failures come first: tests run in this order of their markers, unmarked ones before all.
# The emulated boards are slow, but one worker runs all of them: it begins while others have work.
_COST = ("adb", "sshd", "emulated", "browser", "real_model", "toolchain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def cost(item: pytest.Item) -> int:
        marks = [index + 1 for index, name in enumerate(_COST) if item.get_closest_marker(name)]
        return max(marks, default=0)

    items.sort(key=cost)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if os.environ.get("EDGEPACK_REQUIRE_ALL") and report.skipped:
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def _own_configuration(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the user's own profiles, history and SSH agent out of the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return Path(__file__).parent.parent
