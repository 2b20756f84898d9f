"""Answers of a model are kept, and are the same from the cache."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.cache import Cache
from edgepack.errors import CacheError
from edgepack.evaluate import run_model
from edgepack.workflow import answers
from edgepack.workflow.answers import keep_answers
from tests.fixtures.models import make_feeds, small_model


def test_kept_answers_are_those_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("two")
    feeds = make_feeds(model, num_samples=3)
    run = keep_answers(Cache(root=tmp_path))
    first = run(model, feeds)
    monkeypatch.setattr(answers, "run_model", None)  # what is not kept cannot be answered
    again = run(model, feeds)
    for expected, kept, repeated in zip(run_model(model, feeds), first, again, strict=True):
        for one, two, three in zip(expected, kept, repeated, strict=True):
            assert one.dtype == three.dtype
            assert one.shape == three.shape
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(one, three)
    with pytest.raises(TypeError):
        run(model, feeds[:2])


def test_large_answers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MAXIMUM_BYTES", 10)
    model = small_model("cnn")
    run = keep_answers(Cache(root=tmp_path / "cache"))
    assert len(run(model, make_feeds(model, num_samples=2))) == 2
    assert run(model, []) == ()
    assert not (tmp_path / "cache").exists()


def test_a_damaged_entry_says_what_to_remove(tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "answers.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(CacheError) as caught:
        answers._read(folder, num_samples=1)
    assert caught.value.remedy == "Remove that folder and try again."
