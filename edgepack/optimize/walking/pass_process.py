"""A pass over a float model in a process of its own: what parent and child hand each other.

Ops run there, whose native code may crash, and calibration data takes memory. The folder between
them holds `model.tflite`, `request.json` and `feeds`, the arrays of all samples one after another;
the child puts files of its own beside them.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgepack.child import read_arrays, run_child, write_answer, write_arrays
from edgepack.errors import EdgePackError, OptimizeError
from edgepack.evaluate import Feeds
from edgepack.flatbuffer import read_flatbuffer
from edgepack.graph import Tree
from edgepack.model import Model
from edgepack.scratch import open_scratch

_MODEL_NAME: Final = "model.tflite"
_REQUEST_NAME: Final = "request.json"
_FEEDS_NAME: Final = "feeds"
_TIMEOUT_SECONDS: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PassResult:
    """What a pass gave.

    Attributes:
        folder: holds the files it wrote, as long as the context lasts.
        facts: its answer.
    """

    folder: Path
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class PassJob:
    """What a pass is to do, as its process sees it.

    Attributes:
        folder: for files that the parent shall find.
        data: the float model.
        request: what the parent asks for.
    """

    folder: Path
    data: bytes
    request: dict[str, Any]

    def read_tree(self) -> Tree:
        """Give the model as a tree of its own."""
        return read_flatbuffer(self.data)

    def feeds(self) -> list[tuple[Any, ...]]:
        """Read all samples, one tuple of inputs each."""
        arrays = read_arrays(self.folder / _FEEDS_NAME)
        num_inputs = len(self.read_tree().subgraphs[0].inputs)
        return list(iter(lambda: tuple(islice(arrays, num_inputs)), ()))

    def make_shelf(self, name: str) -> Path:
        """Make a folder for what does not stay in memory."""
        shelf = self.folder / name
        shelf.mkdir()
        return shelf


def spread_feeds(feeds: Feeds, maximum: int) -> Feeds:
    """Give at most so many of the samples, evenly chosen, the first and the last among them."""
    if len(feeds) <= maximum:
        return feeds
    return [feeds[int(index)] for index in np.linspace(0, len(feeds) - 1, maximum)]


@contextmanager
def run_pass(
    worker: str,
    model: Model,
    feeds: Feeds,
    request: Mapping[str, Any],
    *,
    explain: Callable[[str], EdgePackError],
) -> Iterator[PassResult]:
    """Run a pass in a process of its own, for as long as its files are wanted.

    Args:
        worker: the module that the process runs, as Python names it.
        model: float32.
        feeds: samples it gets.
        request: JSON values it gets.
        explain: makes the error of what went wrong: the pass's own words, or how the process ended.

    Raises:
        EdgePackError: what `explain` makes.
    """
    with open_scratch(worker.rpartition(".")[2].removesuffix("_worker")) as folder:
        (folder / _MODEL_NAME).write_bytes(model.data)
        (folder / _REQUEST_NAME).write_text(json.dumps(request), encoding="utf-8")
        write_arrays(folder / _FEEDS_NAME, chain.from_iterable(feeds))
        ended = run_child(worker, [], folder=folder, timeout_seconds=_TIMEOUT_SECONDS)
        answer = ended.answer
        if answer is None:
            # A killed child has no last words.
            words = f"\n{ended.last_words}" if ended.last_words else ""
            raise explain(f"the child was {ended.cause}{words}")
        if "ok" not in answer:
            raise explain(str(answer["error"]["message"]))
        yield PassResult(folder=folder, facts=answer["ok"])


def refuse_model(error: RuntimeError | ValueError) -> OptimizeError:
    """Make the error for a model that LiteRT cannot read, prepare or run, as it raises these."""
    return OptimizeError(
        f"the TFLite runtime refused the model: {error}",
        remedy="Convert the model again; `edgepack inspect` lists its ops.",
    )


def serve_pass(work: Callable[[PassJob], dict[str, Any]]) -> None:
    """Do a pass as the child: the folder is the first argument; what `work` gives is the answer.

    An `OptimizeError` of the pass reaches the parent in its own words.
    """
    folder = Path(sys.argv[1])
    job = PassJob(
        folder=folder,
        data=(folder / _MODEL_NAME).read_bytes(),
        request=json.loads((folder / _REQUEST_NAME).read_text(encoding="utf-8")),
    )
    try:
        answer: dict[str, Any] = {"ok": work(job)}
    except OptimizeError as error:
        answer = {"error": {"message": error.message}}
    write_answer(folder, answer)
