import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import DataError
from edgepack.fidelity import Judgement
from edgepack.importers.figures import OutputFigures
from edgepack.importers.parity_record import Figures, read_figures, write_figures
from edgepack.importers.slices import WorstSlice

_DECIBELS = st.floats(-300.0, 300.0)
_SHARE = st.none() | st.floats(0.0, 1.0)
_OUTPUTS = st.builds(
    OutputFigures,
    output=st.text(max_size=5),
    sqnr_db=_DECIBELS,
    max_abs_error=st.floats(0.0, 1e9),
    cosine=st.floats(-1.0, 1.0),
    top1_agreement=_SHARE,
    equal_share=_SHARE,
    response_db=st.none() | _DECIBELS,
    scale=_SHARE,
    worst_slice=st.none()
    | st.builds(WorstSlice, axis=st.integers(1, 5), index=st.integers(0, 1000), sqnr_db=_DECIBELS),
    num_non_finite=st.integers(0, 1000),
    is_finite=st.booleans(),
    worst_sample=st.integers(0, 15),
)
_FIGURES = st.builds(
    Figures,
    sets=st.lists(
        st.tuples(
            st.none() | st.integers(0, 99),
            st.integers(0, 16),
            st.lists(_OUTPUTS, max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    constancy=st.lists(
        st.sampled_from([None, Judgement.CONSTANT, Judgement.SATURATED]), max_size=3
    ).map(tuple),
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "parity.json"


@given(figures=_FIGURES)
def test_figures_are_read_as_they_were_written(record: Path, figures: Figures) -> None:
    record.write_bytes(write_figures(figures))
    assert read_figures(record) == figures


def test_changed_figures_are_refused_with_all_faults(record: Path) -> None:
    table = {
        "sets": [{"seed": 20, "num_samples": -1, "outputs": []}],
        "constancy": [{"kind": "sometimes"}],
    }
    record.write_text(json.dumps(table))
    with pytest.raises(DataError) as caught:
        read_figures(record)
    assert "num_samples: expected at least 0, not -1" in caught.value.message
    assert "'sometimes'" in caught.value.message
    assert f"Remove the folder {record.parent}" in caught.value.remedy
