"""A model's answers on this machine, kept: the same model and inputs are not run twice."""

import io
import platform
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

import edgepack.child as child_module
import edgepack.evaluate as evaluate_module
import edgepack.evaluate_worker as worker_module
import edgepack.traits as traits_module
from edgepack.cache import Cache, digest_parts, source_digest
from edgepack.errors import CacheError
from edgepack.evaluate import Answers, Feeds, RunModel, run_model
from edgepack.model import Model
from edgepack.optimize.judging.evaluation import digest_feeds

_FILE: Final = "answers.npz"
# Answers of whole pictures for many samples are quicker to compute than to keep.
_MAXIMUM_BYTES: Final = 32 * 2**20


def keep_answers(cache: Cache) -> RunModel:
    """Give a `run_model` that keeps its answers in a cache, up to 32 MiB a run."""

    def run(model: Model, feeds: Feeds) -> Answers:
        key = digest_parts(
            "answers",
            model=model.sha256,
            feeds=digest_feeds(feeds),
            source=source_digest(
                child_module,
                evaluate_module,
                traits_module,
                worker_module,
                sys.modules[__name__],
            ),
            engine=version("ai-edge-litert"),
            machine=platform.machine(),
        )
        folder = cache.load(key)
        if folder is not None:
            return _read(folder, num_samples=len(feeds))
        answers = run_model(model, feeds)
        if _can_be_kept(answers):
            cache.store(key, {_FILE: _write(answers)})
        return answers

    return run


def _can_be_kept(answers: Answers) -> bool:
    num_bytes = sum(array.nbytes for sample in answers for array in sample)
    # A model whose answers' shapes depend on the input is simply run again.
    shapes = {tuple(array.shape for array in sample) for sample in answers}
    return len(shapes) == 1 and num_bytes <= _MAXIMUM_BYTES


def _write(answers: Answers) -> bytes:
    file = io.BytesIO()
    columns = [np.stack(column) for column in zip(*answers, strict=True)]
    np.savez(file, allow_pickle=False, **{str(i): column for i, column in enumerate(columns)})
    return file.getvalue()


def _read(folder: Path, *, num_samples: int) -> Answers:
    try:
        # Opened here: numpy leaves a file open that is no archive (2.4).
        with (folder / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = [arrays[str(index)] for index in range(len(arrays.files))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CacheError(
            f"the kept result {folder} cannot be read: {error}",
            remedy="Remove that folder and try again.",
        ) from error
    return tuple(tuple(column[index, ...] for column in columns) for index in range(num_samples))
