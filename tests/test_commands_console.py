"""What is shown while a command works, on a terminal and in a pipe."""

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.progress import Progress

from edgepack.commands.console import LiveWork, show_work
from edgepack.commands.progress import make_progress


@pytest.fixture(params=[60, 80, 140])
def bars(request: pytest.FixtureRequest) -> Iterator[Progress]:
    console = Console(file=io.StringIO(), force_terminal=True, width=request.param)
    with make_progress(console) as bars:
        yield bars


def _shown(bars: Progress) -> list[str]:
    """The lines of the display as they stand now."""
    console = Console(file=io.StringIO(), width=bars.console.width, color_system=None)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


def test_a_step_shows_its_text_and_its_time(bars: Progress) -> None:
    work = LiveWork(bars)
    work.step("converting [b]digits[/b]")
    (line,) = _shown(bars)
    assert re.fullmatch(r". converting \[b]digits\[/b] +0:00:00", line)
    work.step("comparing")
    (line,) = _shown(bars)
    assert "comparing" in line
    assert "bytes" not in line


def test_a_transfer_is_one_line_with_a_bar_and_a_rate(bars: Progress) -> None:
    work = LiveWork(bars)
    work.step("installing a runtime with a long name on a device with a long address")
    work.transfer(20_000_000, 60_000_000)
    work.transfer(10_000_000, 60_000_000)
    (line,) = _shown(bars)
    assert "30.0/60.0 MB" in line
    assert "━" in line
    assert "installing" in line


def test_after_the_last_byte_the_step_goes_on(bars: Progress) -> None:
    work = LiveWork(bars)
    work.step("pushing")
    work.transfer(100, 200)
    work.transfer(100, 200)
    (line,) = _shown(bars)
    assert re.fullmatch(r"\S pushing +0:00:00", line)


def test_the_display_gives_way_to_a_question(bars: Progress) -> None:
    work = LiveWork(bars)
    work.step("connecting")
    asked = []

    def prompt(text: str) -> str:
        asked.append((text, bars.live.is_started))
        return "secret"

    assert work.ask(prompt, "Passphrase: ") == "secret"
    assert asked == [("Passphrase: ", False)]
    assert bars.live.is_started


def test_in_a_pipe_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with show_work() as work:
        work.step("one")
        work.transfer(1, 2)
        work.step("two")
    assert capsys.readouterr().err == "one\ntwo\n"
