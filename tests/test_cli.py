"""The entry: help, version, speed of starting, and what every verb says of itself."""

import os
import subprocess
import sys
import time

import pytest

from edgepack import __version__
from edgepack.cli import _VERBS
from tests.fixtures.commands import RunCommand

_VERB_HELP = [*_VERBS, "targets list", "targets show", "toolchain list", "toolchain install"]


def test_help_names_every_verb(run: RunCommand) -> None:
    ran = run("--help")
    assert ran.code == 0
    for verb, (_, text) in _VERBS.items():
        assert f"  {verb} " in ran.out
        assert text in ran.out
    assert "4 a limit is not met" in " ".join(ran.out.split())


def test_a_bare_call_shows_the_help(run: RunCommand) -> None:
    ran = run()
    assert ran.code == 2
    assert "Verbs:" in ran.err


def test_version(run: RunCommand) -> None:
    assert run("--version").out == f"edgepack, version {__version__}\n"


@pytest.mark.parametrize("verb", _VERB_HELP)
def test_each_verb_explains_itself(run: RunCommand, verb: str) -> None:
    ran = run(*verb.split(), "--help")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 100
    options = ran.out.partition("Options:")[2].splitlines()
    # An option's text begins on its own line or the next; none stands without one.
    for line, following in zip(options, [*options[1:], ""], strict=True):
        if line.startswith("  -"):
            assert "  " in line.strip() or following.startswith("      "), line


@pytest.mark.parametrize("verb", _VERBS)
def test_the_list_of_verbs_and_the_verbs_agree(run: RunCommand, verb: str) -> None:
    first = run(verb, "--help").out.split("\n\n")[1]
    assert first.strip()[0].isupper()


def test_python_m_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "edgepack", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"edgepack, version {__version__}\n"


def test_help_is_quick() -> None:
    # The figure is kept by benchmarks/; here only a heavy import would show.
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "edgepack", "--help"], check=True, capture_output=True
        )
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1.0


def test_a_reader_that_goes_away_is_no_bug() -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "edgepack", "targets", "show", "raspberry-pi-4"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert ran.returncode == 1
    assert ran.stderr == ""
