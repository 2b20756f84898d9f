"""The command line's entry: verbs loaded on demand, and the one place that sets exit codes.

Importing this module costs click and nothing else, so that `edgepack --help` is quick: the
verbs' one-line descriptions stand here, and a verb's module is imported when it is run.
"""

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import click

from edgepack import __version__
from edgepack.commands.boundary import run_guarded

# verb → module attribute, one line of help; in the order a new user meets them.
_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "bench": (
        "edgepack.commands.bench:bench",
        "Measure a model's or bundle's latency on devices.",
    ),
    "compare": (
        "edgepack.commands.compare:compare",
        "Say which of two stored results is faster.",
    ),
    "history": (
        "edgepack.commands.history:history",
        "List earlier results, their trend, and export them.",
    ),
    "gate": (
        "edgepack.commands.gate:gate",
        "Hold stored results to limits, for continuous integration.",
    ),
    "deploy": (
        "edgepack.commands.deploy:deploy",
        "Pack a model, push it, measure it and write a report.",
    ),
    "pack": ("edgepack.commands.pack:pack", "Turn a model into one verifiable bundle."),
    "convert": (
        "edgepack.commands.convert:convert",
        "Turn a model into a float .tflite that computes the same.",
    ),
    "push": ("edgepack.commands.push:push", "Put a bundle on devices."),
    "releases": (
        "edgepack.commands.releases:releases",
        "List the releases on devices, and remove old ones.",
    ),
    "rollback": (
        "edgepack.commands.rollback:rollback",
        "Make an earlier release current again.",
    ),
    "doctor": (
        "edgepack.commands.doctor:doctor",
        "Find what stands in the way of a deployment to a device.",
    ),
    "inspect": ("edgepack.commands.inspect:inspect", "Show what a model or bundle holds."),
    "verify": (
        "edgepack.commands.verify:verify",
        "Check a bundle bit by bit, and who signed it.",
    ),
    "sign": ("edgepack.commands.sign:sign", "Sign a bundle with an SSH key."),
    "report": ("edgepack.commands.report:report", "Write an HTML report of stored results."),
    "targets": (
        "edgepack.commands.targets:targets",
        "List, show, check and draft target profiles.",
    ),
    "toolchain": (
        "edgepack.commands.toolchain:toolchain",
        "List, install and remove the converters' environments.",
    ),
}


class _VerbGroup(click.Group):
    """A group whose verbs are imported only when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            from edgepack._fields import nearest  # noqa: PLC0415 - only on a mistake

            ctx.fail(f"unknown verb {args[0]!r}{nearest(args[0], list(_VERBS))}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="DEVICE is user@host[:port], ssh://user@host, an alias of your SSH configuration, "
    "adb: or adb:SERIAL behind adb, or local: for this machine. `edgepack VERB --help` tells more. "
    "Exit codes: 0 done, 1 expected failure, 2 usage, 3 bug, 4 a limit is not met, "
    "130 interrupted.",
)
@click.version_option(__version__, prog_name="edgepack")
def edgepack() -> None:
    """Optimize, deploy and benchmark neural networks on named edge devices."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if args is None else args)
    # What cleans up after Ctrl-C must do so when a service manager or a closed terminal ends us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    sys.exit(run_guarded(edgepack, arguments))
