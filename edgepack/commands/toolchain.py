"""`edgepack toolchain`: the converters' isolated environments."""

import click

from edgepack.commands.console import LIST_WIDTH, note, print_json, print_table, show_work
from edgepack.commands.options import json_option


@click.group()
def toolchain() -> None:
    """List, install and remove the converters' environments.

    A toolchain is made by itself when a model first needs it; `install` makes it ahead of
    time, for instance while there is internet.
    """


@toolchain.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List the toolchains and what they take on disk."""
    from edgepack.toolchains import list_toolchains

    statuses = list_toolchains()
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "state": each.state.value,
                    "path": str(each.path) if each.path else None,
                    "size_bytes": each.size_bytes,
                    "python": each.python_version,
                    "versions": dict(each.versions),
                }
                for each in statuses
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("toolchain", "state", "size", "Python", "versions", "for"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for each in statuses:
        size = "" if each.size_bytes is None else f"{each.size_bytes / 1e6:.0f} MB"
        versions = ", ".join(f"{name} {version}" for name, version in each.versions)
        table.add_row(
            each.name, each.state.value, size, each.python_version or "", versions, each.purpose
        )
    print_table(table, width=LIST_WIDTH)


@toolchain.command("install")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--index-url",
    metavar="URL",
    help="Package index to take PyTorch itself from.",
)
@click.option(
    "--cuda", is_flag=True, help="Take a build of PyTorch for CUDA if that is what pip finds."
)
@json_option
def install_command(
    *, names: tuple[str, ...], index_url: str | None, cuda: bool, as_json: bool
) -> None:
    """Make toolchains ready for use.

    On Linux, the package index's build of PyTorch is made for CUDA and takes some 9 GB on
    disk. Nothing is computed on a GPU, so it is refused; take the CPU build (200 MB): give
    --index-url the CPU index that pytorch.org/get-started/locally names.
    """
    from edgepack.toolchains import BuildChoice, ensure_toolchain

    choice = BuildChoice(index_url=index_url, allow_large=cuda)
    ready = []
    for name in names:
        with show_work() as work:
            ready.append(ensure_toolchain(name, choice=choice, on_progress=work.step))
    if as_json:
        print_json(
            [{"name": e.name, "python": str(e.python), "versions": dict(e.versions)} for e in ready]
        )
        return
    for each in ready:
        click.echo(f"{each.name}: ready ({each.origin.value}, {each.python})")


@toolchain.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def remove_command(*, names: tuple[str, ...], as_json: bool) -> None:
    """Remove toolchains; they are made again when they are needed."""
    from edgepack.toolchains import remove_toolchain

    removed = {name: remove_toolchain(name) for name in names}
    if as_json:
        print_json(removed)
        return
    for name, was_there in removed.items():
        note(f"{name}: removed" if was_there else f"{name}: was not installed")
