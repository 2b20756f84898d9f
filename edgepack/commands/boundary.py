"""Where exceptions become messages and exit codes."""

import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import click

from edgepack import __version__
from edgepack.errors import EdgePackError, ExitCode


def run_guarded(command: click.Command, arguments: Sequence[str]) -> ExitCode:
    """Run a command; print what went wrong, with `--json` as JSON too; give the exit code."""
    as_json = "--json" in arguments
    code: object
    try:
        code = command.main(args=list(arguments), prog_name="edgepack", standalone_mode=False)
    except EdgePackError as error:
        _tell(as_json=as_json, kind=error.kind, message=error.message, remedy=error.remedy)
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        # click 8.2+ raises when a group is called bare; the help it carries is the answer.
        click.echo(error.format_message(), err=True)
        code = ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f"Try '{context.command_path} --help'." if context else "Try 'edgepack --help'."
        _tell(as_json=as_json, kind="usage", message=error.format_message(), remedy=usage)
        code = ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        _tell(as_json=as_json, kind="interrupted", message="interrupted", remedy="")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`edgepack … | head`): nothing is left to say, and
        # Python would complain once more when it flushes stdout at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FAILURE
    except Exception as error:  # noqa: BLE001 - the last boundary: a bug is reported, not spilled
        path = _write_bug_report(arguments)
        _tell(
            as_json=as_json,
            kind="bug",
            message=f"EdgePack has a bug here: {type(error).__name__}: {error}",
            remedy=f"The details are in {path}; please report them with that file.",
        )
        code = ExitCode.BUG
    return ExitCode(code) if isinstance(code, int) else ExitCode.DONE


def error_json(error: EdgePackError) -> dict[str, Any]:
    """Give the JSON form of an error, as `--json` prints it."""
    return {"kind": error.kind, "message": error.message, "remedy": error.remedy}


def _tell(*, as_json: bool, kind: str, message: str, remedy: str) -> None:
    if as_json:
        body = {"error": {"kind": kind, "message": message, "remedy": remedy}}
        click.echo(json.dumps(body, ensure_ascii=False))
    click.echo(f"edgepack: {message}", err=True)
    if remedy:
        click.echo(f"  {remedy}", err=True)


def _write_bug_report(arguments: Sequence[str]) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="edgepack-bug-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"edgepack {__version__}, Python {sys.version}\narguments: {arguments}\n\n")
        file.write(traceback.format_exc())
    return file.name
