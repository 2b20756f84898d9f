"""What is shown while a command works, on a terminal and in a pipe."""

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.progress import Progress

from edgepack.commands.console import LiveWork, show_work
from edgepack.commands.progress import make_progress
from edgepack.workflow.request import SearchProgress


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


def _progress(num_done: int, best: str | None = "int8+gptq", **more: bool) -> SearchProgress:
    return SearchProgress(
        num_done=num_done,
        num_total=40,
        best=best,
        best_sqnr_db=22.31 if best else None,
        best_latency_ns=4_100_000.0 if best else None,
        best_bytes=5_351_000 if best else None,
        **more,
    )


def test_a_search_is_one_line_below_its_step(bars: Progress) -> None:
    work = LiveWork(bars)
    work.progress(_progress(0, None))
    work.step("building int8+gptq+bias")
    work.progress(_progress(12))
    search, step = _shown(bars)
    assert "building int8+gptq+bias" in step
    assert "━" in search
    assert "12/40" in search
    assert "bytes" not in search
    assert "MB/s" not in search
    if bars.console.width > 80:
        assert "best so far: int8+gptq, 22.3 dB, 4.10 ms, 5.35 MB" in search


def test_an_interrupted_search_says_what_it_keeps(
    bars: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    work = LiveWork(bars)
    work.progress(_progress(12))
    work.progress(_progress(12, is_interrupted=True))
    assert _shown(bars) == []
    shown = capsys.readouterr().err + bars.console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "interrupted after 12 of 40 candidates" in shown


def test_in_a_pipe_a_search_says_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    with show_work() as work:
        for progress in (
            *(_progress(0, None), _progress(1, "float32"), _progress(2, "float32")),
            *(_progress(3), _progress(4), _progress(40)),
        ):
            work.progress(progress)
    figures = "22.3 dB, 4.10 ms, 5.35 MB"
    assert capsys.readouterr().err == (
        f"1 of 40 candidates; best so far: float32, {figures}\n"
        f"3 of 40 candidates; best so far: int8+gptq, {figures}\n"
    )


def test_an_interrupted_search_says_so_in_a_pipe_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_work() as work:
        work.progress(_progress(1, None))
        work.progress(_progress(12, "evil\x1b[31m", is_interrupted=True))
    assert capsys.readouterr().err == (
        "warning: interrupted after 12 of 40 candidates: the search ends here, and the best so "
        "far is kept (evil�[31m, 22.3 dB, 4.10 ms, 5.35 MB); interrupt again to give it up\n"
    )


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
