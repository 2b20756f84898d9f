"""Telling the files that PyTorch writes apart, without running what they hold."""

import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from edgepack.errors import ModelError
from edgepack.importers.source import SourceFormat

# torch.save before PyTorch 1.6: a pickle (protocol 2) of this number comes first.
_LEGACY_MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAXIMUM_PICKLE_BYTES: Final = 64 << 20
# What the pickle of a dictionary of tensors names; anything else is a class of its own.
_PLAIN_MODULES: Final = frozenset({
    "__builtin__", "builtins", "collections", "torch", "torch._utils", "torch.storage",
})  # fmt: skip
_EXPORT: Final = (
    "Export it with torch.export.save(torch.export.export(model.eval(), example_inputs), "
    "'model.pt2')"
)


def is_legacy_file(head: bytes) -> bool:
    """Tell whether a file begins as torch.save of PyTorch 1.5 and older wrote it."""
    return head.startswith(_LEGACY_MAGIC)


def refuse_legacy_file(path: Path) -> None:
    """Refuse a file that only unpickling, which runs its code, could look into.

    Raises:
        ModelError: always.
    """
    raise ModelError(
        f"{path}: expected an exported program or TorchScript, but it is a pickle that torch.save "
        "wrote: weights, or a module whose code stands elsewhere",
        remedy=f"Load it in a function that returns the module and give FILE.py:function. Or: "
        f"{_EXPORT}.",
    )


def detect_archive(path: Path, archive: zipfile.ZipFile) -> SourceFormat | None:
    """Tell which of PyTorch's archives a ZIP file is; None when it is none of them.

    Raises:
        ModelError: weights alone, or a pickled module.
        zipfile.BadZipFile: the archive is damaged.
    """
    members = archive.namelist()
    inner = {name.partition("/")[2] for name in members}
    if "archive_format" in inner or "serialized_exported_program.json" in members:
        return SourceFormat.PYTORCH
    if "data.pkl" not in inner:
        return None
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return SourceFormat.TORCHSCRIPT
    (pickled,) = [name for name in members if name.partition("/")[2] == "data.pkl"][:1]
    classes = _classes(archive, pickled)
    if classes:
        raise ModelError(
            f"{path}: expected an exported program or TorchScript, but it is a pickled module "
            f"({', '.join(classes[:3])}), whose code stands elsewhere",
            remedy=f"{_EXPORT}; or load it in a function that returns the module and give "
            "FILE.py:function.",
        )
    raise ModelError(
        f"{path}: expected an exported program or TorchScript, but it holds weights alone (a "
        "state_dict)",
        remedy="Load them into the module in a function that returns (module, example_inputs) "
        "and give FILE.py:function.",
    )


def _classes(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Give the classes a pickle names beside those of plain tensors, by reading its opcodes."""
    if archive.getinfo(name).file_size > _MAXIMUM_PICKLE_BYTES:
        return []
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(archive.read(name)):
            if opcode.name == "GLOBAL" and isinstance(argument, str):
                module, _, attribute = argument.partition(" ")
                if module not in _PLAIN_MODULES:
                    found.append(f"{module}.{attribute}")
    except ValueError:  # no pickle, or cut off
        pass
    return _modules_first(found)


def _modules_first(names: Collection[str]) -> list[str]:
    """Put classes of the user's own before PyTorch's, without doubles."""
    return sorted(dict.fromkeys(names), key=lambda name: name.startswith("torch."))
