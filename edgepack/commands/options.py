"""Options that several verbs share, and the values they make."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.data import ImagePreprocessing
    from edgepack.device.connect import ConnectOptions
    from edgepack.importers import ImportOptions
    from edgepack.measure.plan import BenchmarkPlan
    from edgepack.profile import BenchmarkDefaults

F = TypeVar("F", bound=Callable[..., Any])

_SHAPE: Final = re.compile(r"([^=]+)=(\d+(?:[,x]\d+)*)")
_NUMBERS: Final = re.compile(r"-?\d+(\.\d+)?(,-?\d+(\.\d+)?)*")
EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT_FILE: Final = click.Path(dir_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _apply(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def device_options(function: F) -> F:
    """Add the options that say how a device is reached."""
    return _apply(
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
            type=click.FloatRange(min=0.1, max=600),
            metavar="SECONDS",
            help="Limit for reaching a device [default: the SSH configuration's, else 15].",
        ),
        click.option(
            "--root", metavar="PATH", help="Folder on the device for releases and runtimes."
        ),
    )(function)


def make_connect_options(
    *,
    ssh_config: Path | None,
    identity: Path | None,
    accept_new_host_key: bool,
    host_key: str | None,
    connect_timeout: float | None,
) -> "ConnectOptions":
    """Make the connection's options; secrets are asked for only on a terminal."""
    from edgepack.device.connect import ConnectOptions

    return ConnectOptions(
        ssh_config=ssh_config,
        identity=identity,
        accept_new_host_key=accept_new_host_key,
        host_key=host_key,
        connect_timeout_seconds=connect_timeout,
        prompt=_ask_secret if sys.stdin.isatty() and sys.stderr.isatty() else None,
    )


def _ask_secret(text: str) -> str:
    answer: str = click.prompt(text, hide_input=True, err=True)
    return answer


def plan_options(function: F) -> F:
    """Add the options that say how long and with how many threads to measure."""
    return _apply(
        click.option("--launches", type=click.IntRange(1, 1000), help="Fresh launches to time."),
        click.option("--runs", type=click.IntRange(1, 1_000_000), help="Timed runs a launch."),
        click.option("--threads", type=click.IntRange(1, 1024), help="Threads to infer with."),
        click.option(
            "--max-seconds",
            type=click.FloatRange(min=1, max=86400),
            help="Limit for measuring one model on one device.",
        ),
    )(function)


def make_plan(
    *,
    defaults: "BenchmarkDefaults",
    num_threads: int,
    launches: int | None,
    runs: int | None,
    max_seconds: float | None,
) -> "BenchmarkPlan":
    """Make the plan from the profile's defaults and what the command line overrides."""
    from edgepack.measure.plan import BenchmarkPlan

    return BenchmarkPlan(
        num_launches=launches or defaults.num_launches,
        min_runs=runs or defaults.min_runs,
        min_seconds=0.0 if runs else defaults.min_seconds,
        max_seconds=max_seconds or defaults.max_seconds,
        num_threads=num_threads,
    )


def import_options(function: F) -> F:
    """Add the options that say how a source model is read."""
    return _apply(
        click.option(
            "--input-shape",
            "input_shapes",
            multiple=True,
            metavar="NAME=1,3,224,224",
            help="Fix the shape of an input (ONNX); may be given once for each input.",
        ),
        click.option("--signature", metavar="KEY", help="Signature of a SavedModel."),
        click.option(
            "--trust-model",
            is_flag=True,
            help="Allow a model file to run code of its own (Lambda layers, Python ops).",
        ),
        click.option(
            "--toolchain-python",
            type=EXISTING_FILE,
            envvar="EDGEPACK_TOOLCHAIN_PYTHON",
            help="Python of an environment of yours that holds the framework.",
        ),
    )(function)


def make_import_options(
    *,
    input_shapes: tuple[str, ...],
    signature: str | None,
    trust_model: bool,
    toolchain_python: Path | None,
) -> "ImportOptions":
    """Make the importer's options.

    Raises:
        UsageError: a shape that is not NAME=1,3,224,224, or an input named twice.
    """
    from edgepack.importers import ImportOptions

    shapes: dict[str, tuple[int, ...]] = {}
    for text in input_shapes:
        match = _SHAPE.fullmatch(text)
        if match is None or match[1] in shapes:
            raise UsageError(
                f"--input-shape: expected NAME=1,3,224,224, once for each input, not {text!r}",
                remedy="Write the input's name, '=' and its dimensions separated by commas.",
            )
        shapes[match[1]] = tuple(int(size) for size in re.split("[,x]", match[2]))
    return ImportOptions(
        input_shapes=tuple(shapes.items()),
        signature=signature,
        trust_model=trust_model,
        toolchain_python=toolchain_python,
    )


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers separated by commas.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    if not _NUMBERS.fullmatch(text):
        raise UsageError(
            f"{option}: expected numbers separated by commas, not {text!r}",
            remedy=f"Write for instance {option} 0.485,0.456,0.406.",
        )
    return tuple(float(number) for number in text.split(","))
