"""Where exceptions become messages and exit codes."""

import contextlib
import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from edgepack import __version__
from edgepack.errors import EdgePackError, ExitCode, OutputError

_DISK_FAULTS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


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
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            _forget_output()
        elif error.errno in _DISK_FAULTS:
            # Temporary files are written in many places; wherever it happens, it is no bug.
            where = error.filename or tempfile.gettempdir()
            message = f"{where}: cannot be written: {error.strerror}"
            remedy = "Free some space, or name another folder for temporary files with TMPDIR."
            _tell(as_json=as_json, kind=OutputError.kind, message=message, remedy=remedy)
        else:
            _tell_bug(error, arguments, as_json=as_json)
            return ExitCode.BUG
        code = ExitCode.FAILURE
    except Exception as error:  # noqa: BLE001 - the last boundary: a bug is reported, not spilled
        _tell_bug(error, arguments, as_json=as_json)
        code = ExitCode.BUG
    return ExitCode(code) if isinstance(code, int) else ExitCode.DONE


def end_early(fault: BaseException) -> ExitCode:
    """Say on stderr what ended a verb once its result is printed; give the exit code.

    Raises:
        BaseException: it is a bug.
    """
    if isinstance(fault, KeyboardInterrupt):
        _tell(as_json=False, kind="interrupted", message="interrupted", remedy="")
        return ExitCode.INTERRUPTED
    if isinstance(fault, EdgePackError):
        _tell(as_json=False, kind=fault.kind, message=fault.message, remedy=fault.remedy)
        return fault.exit_code
    raise fault


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


def _tell_bug(error: Exception, arguments: Sequence[str], *, as_json: bool) -> None:
    path = _write_bug_report(arguments)
    _tell(
        as_json=as_json,
        kind="bug",
        message=f"EdgePack has a bug here: {type(error).__name__}: {error}",
        remedy=f"The details are in {path}; please report them with that file.",
    )


def _forget_output() -> None:
    """Drop what is left to print: its reader went away (`edgepack … | head`).

    Python would complain once more when it flushes stdout at exit.
    """
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_bug_report(arguments: Sequence[str]) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="edgepack-bug-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"edgepack {__version__}, Python {sys.version}\narguments: {arguments}\n\n")
        file.write(traceback.format_exc())
    return file.name
