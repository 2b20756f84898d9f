"""Options that several verbs share, and the values they make."""

import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from edgepack.commands.console import Work
    from edgepack.device.runtime.android import AndroidRuntime
    from edgepack.device.store.lock import LockOptions
    from edgepack.device.wire.connect import ConnectOptions
    from edgepack.profile import TargetProfile
    from edgepack.workflow.timing import PlanWishes

F = TypeVar("F", bound=Callable[..., Any])

EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT_FILE: Final = click.Path(dir_okay=False, path_type=Path)

_UNITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("", "B"), 1),
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)},
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def apply_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Give one decorator for several options, which `--help` lists in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def read_size(text: str) -> int:
    """Read a number of bytes, such as `500MB` or `2GiB`; for an option's type.

    Raises:
        BadParameter: no such number.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})", text)
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise click.BadParameter(f"{text!r} is no size such as 500MB or 2GiB.")
    return int(float(match[1]) * factor)


class NumberRange(click.FloatRange):
    """A real number within limits; "nan" passes every comparison of click's own range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the number; `nan` is refused as what is no number at all is."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """Seconds, as `90`, `90s`, `10m` or `1h`, up to a limit."""

    name = "time"

    def __init__(self, *, maximum: int = 86_400) -> None:
        self._maximum = maximum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the seconds."""
        match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)", str(value))
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
        if not 1 <= seconds <= self._maximum:
            longest = f"{self._maximum // 3600}h"
            self.fail(f"{value!r} is no time from 1s to {longest}, such as 90s or 10m.", param, ctx)
        return seconds


class Share(click.ParamType[float]):
    """A share within limits, as `0.05` or `5%`."""

    name = "share"

    def __init__(self, *, minimum: float, maximum: float | None = None) -> None:
        self._range = NumberRange(min=minimum, max=maximum)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the share."""
        text = str(value)
        number = float(NumberRange().convert(text.removesuffix("%"), param, ctx))
        return self._range.convert(number / 100 if text.endswith("%") else number, param, ctx)


def device_options(function: F) -> F:
    """Add the options that say how a device is reached."""
    return apply_options(
        click.option(
            "--ssh-config", type=EXISTING_FILE, help="SSH configuration instead of the user's."
        ),
        click.option("--identity", "-i", type=EXISTING_FILE, help="Private key to log in with."),
        click.option(
            "--accept-new-host-key",
            is_flag=True,
            help="Trust a device met for the first time and remember its key.",
        ),
        click.option("--host-key", metavar="SHA256:…", help="The only host key to trust."),
        click.option(
            "--connect-timeout",
            type=NumberRange(min=0.1, max=600),
            metavar="SECONDS",
            help="Limit for reaching a device [default: the SSH configuration's, else 15].",
        ),
    )(function)


def root_option(function: F) -> F:
    """Add the option that says where things lie on a device."""
    return click.option(
        "--root",
        metavar="PATH",
        help="Folder on the device for releases and runtimes "
        "[default: the target's, else ~/.edgepack].",
    )(function)


def runner_option(function: F) -> F:
    """Add the option that says whose runner runs models."""
    return click.option(
        "--runner",
        type=click.Choice(["auto", "python", "native"]),
        help="What runs models on the device: its Python, or a program that needs none "
        "[default: auto, Python where one suits].",
    )(function)


def find_target(name: str | None) -> "TargetProfile | None":
    """Find the profile that `--target` names; None where it names none.

    Raises:
        ProfileError: there is no such target, or it is not valid.
    """
    from edgepack.catalog import find_profile, user_profile_directory

    if name is None:
        return None
    return find_profile(name, user_directory=user_profile_directory())[0]


def runtime_options(function: F) -> F:
    """Add the options that say whose runner runs models, or bring a runtime of the user's own."""
    return apply_options(
        runner_option,
        click.option(
            "--runtime",
            type=EXISTING_FILE,
            metavar="FILE.aar",
            help="LiteRT's library for stock Android, as Maven has it; untried on real phones.",
        ),
        click.option(
            "--runtime-program",
            type=EXISTING_FILE,
            help="The runner for it, built with the NDK; docs/devices.md has the command.",
        ),
    )(function)


def android_runtime_from(given: Mapping[str, Any]) -> "AndroidRuntime | None":
    """Read what the user brings for stock Android; None where nothing is brought.

    Raises:
        UsageError: one of the two is missing, or they are to run in a Python.
        ProvisionError: they cannot be what they should.
    """
    from edgepack.errors import UsageError

    aar, program = given.get("runtime"), given.get("runtime_program")
    if aar is None and program is None:
        return None
    if aar is None or program is None:
        missing = "--runtime" if aar is None else "--runtime-program"
        raise UsageError(
            f"{missing}: expected with --runtime{'-program' if aar is None else ''}: a library "
            "for Android and a runner for it go together",
            remedy="Give both; docs/devices.md (Android) tells where they come from.",
        )
    if given["runner"] == "python":
        raise UsageError(
            "--runner python: a runtime that --runtime brings has no Python",
            remedy="Leave one of the two out.",
        )
    from edgepack.device.runtime.android import read_android_runtime

    return read_android_runtime(aar, program)


def lock_option(function: F) -> F:
    """Add the option that says how long another user of the device is waited for."""
    return click.option(
        "--lock-wait",
        type=NumberRange(min=0, max=86400),
        metavar="SECONDS",
        help="How long to wait while another push or benchmark uses the device [default: 300].",
    )(function)


def lock_options_from(purpose: str, given: Mapping[str, Any], work: "Work") -> "LockOptions":
    """Make the options that a device is held with."""
    from edgepack.device.store.lock import WAIT_SECONDS, LockOptions

    wait = given["lock_wait"]
    return LockOptions(
        purpose=purpose, wait_seconds=WAIT_SECONDS if wait is None else wait, on_wait=work.step
    )


def refuse_device_options(given: Mapping[str, Any]) -> None:
    """Refuse options that say how a device is reached when there is none.

    Raises:
        UsageError: naming them.
    """
    from edgepack.errors import UsageError

    names = (
        *("ssh_config", "identity", "accept_new_host_key", "host_key", "connect_timeout"),
        *("root", "runner"),
    )
    idle = [f"--{name.replace('_', '-')}" for name in names if given[name]]
    idle += ["--lock-wait"] if given["lock_wait"] is not None else []
    if idle:
        raise UsageError(
            f"{', '.join(idle)}: there is no device this could apply to",
            remedy="Give one with --device, or leave it out.",
        )


def connect_options_from(given: Mapping[str, Any], work: "Work") -> "ConnectOptions":
    """Make the connection's options; secrets are asked for only on a terminal."""
    from edgepack.device.wire.connect import ConnectOptions

    prompt = secret_prompt()
    return ConnectOptions(
        ssh_config=given["ssh_config"],
        identity=given["identity"],
        accept_new_host_key=given["accept_new_host_key"],
        host_key=given["host_key"],
        connect_timeout_seconds=given["connect_timeout"],
        prompt=(lambda text: work.ask(prompt, text)) if prompt is not None else None,
    )


def secret_prompt() -> Callable[[str], str] | None:
    """Give what asks for a secret without showing it; None where there is no terminal."""
    return _ask_secret if sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask_secret(text: str) -> str:
    # An empty answer is an answer: it gives up this way of logging in.
    answer: str = click.prompt(
        text, hide_input=True, err=True, prompt_suffix="", default="", show_default=False
    )
    return answer


def _read_affinity(
    context: click.Context,  # noqa: ARG001 - click's signature
    option: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> str | None:
    from edgepack.measure.plan import AFFINITY

    if value is not None and not AFFINITY.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no list of cores such as 4-7 or 0,2.")
    return value


def plan_options(function: F) -> F:
    """Add the options that say how long and with how many threads to measure."""
    return apply_options(
        click.option(
            "--launches",
            type=click.IntRange(1, 1000),
            help="Fresh launches to time [default: the target's, else 10]; below 6 no interval.",
        ),
        click.option(
            "--runs",
            type=click.IntRange(1, 1_000_000),
            help="Timed runs a launch [default: a second's worth, at least 64].",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 1024),
            help="Threads to infer with [default: the target's, else 1].",
        ),
        click.option(
            "--cpu-affinity",
            metavar="CORES",
            callback=_read_affinity,
            help="Hold the process to these cores of the device, such as 4-7 or 0,2.",
        ),
        click.option(
            "--precision",
            type=Share(minimum=0.0001, maximum=1),
            metavar="SHARE",
            help="Add launches until the median, or with --against the speed-up, is known to this "
            "share to either side, such as 2%, or --max-seconds end.",
        ),
        click.option(
            "--cooldown",
            type=Duration(maximum=3600),
            metavar="TIME",
            help="Before each launch wait until the temperature is back near where it began, at "
            "most so long; in any case so long where no thermometer can be read.",
        ),
        click.option(
            "--sustained",
            type=Duration(),
            metavar="TIME",
            help="One launch that goes on so long from cold, such as 10m: the last minute against "
            "the first, with clock and temperature.",
        ),
        click.option(
            "--max-seconds",
            type=NumberRange(min=1, max=86400),
            help="Limit for measuring on one device [default: the target's, else 60].",
        ),
    )(function)


def check_plan_options(given: Mapping[str, Any]) -> None:
    """Refuse options of a plan that contradict each other, before any work is done.

    Raises:
        UsageError: `--sustained` beside what says how long to measure otherwise.
    """
    from edgepack.errors import UsageError

    others = ("launches", "runs", "precision", "max_seconds", "cooldown")
    refused = [f"--{key.replace('_', '-')}" for key in others if given[key] is not None]
    if given["sustained"] is not None and refused:
        raise UsageError(
            f"--sustained is a plan of its own, beside which {', '.join(refused)} says nothing",
            remedy="Leave that out.",
        )


def wishes_from(given: Mapping[str, Any]) -> "PlanWishes":
    """Read what the command line says of a plan: the values of `plan_options`."""
    from dataclasses import fields

    from edgepack.workflow.timing import PlanWishes

    return PlanWishes(**{each.name: given[each.name] for each in fields(PlanWishes)})
