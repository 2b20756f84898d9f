#!/usr/bin/env python3
"""Make ONNX models by hand, of every opset and kind; run by scripts/model-support.

    onnx_models.py --list             one line of JSON a model: its name and files
    onnx_models.py FOLDER NAME...     writes FOLDER/NAME/FILE for each file of the list

It runs in the onnx toolchain. The weights come from a fixed seed.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_networks

FIRST_OPSET = 9
LAST_OPSET = 25
"""Of onnx 1.20, the toolchain's."""
ONNX: dict[str, tuple[str, ...]] = {"model.onnx": ()}


def classifier(opset: int) -> Callable[[Path], None]:
    """Give what writes the same picture classifier as an opset spells it."""
    return lambda folder: onnx_networks.classifier(opset).save(folder / "model.onnx")


def plain(build: Callable[[], Any]) -> Callable[[Path], None]:
    """Give what writes a graph as one file."""
    return lambda folder: build().save(folder / "model.onnx")


CASES: dict[str, tuple[dict[str, tuple[str, ...]], Callable[[Path], None]]] = {
    f"onnx-opset-{opset}": (ONNX, classifier(opset)) for opset in range(FIRST_OPSET, LAST_OPSET + 1)
} | {
    f"onnx-{name}": (files, plain(build) if build else write)
    for name, build, files, write in onnx_networks.NETWORKS
}


def main() -> int:
    """List the models, or write those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the models")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if given.list:
        for name, (files, _) in CASES.items():
            print(json.dumps({"name": name, "toolchain": "onnx", "files": files}))
        return 0
    for name in given.names:
        folder = given.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        CASES[name][1](folder)
        print(f"wrote {name}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
