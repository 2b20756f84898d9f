"""What each op takes, as the report shows it."""

from dataclasses import replace

from edgepack.measure.profile import OpProfile, OpTime
from edgepack.report.measured import summarize_measurement
from edgepack.report.ops import describe_delegation, ops_part, plot_ops, rank_ops
from tests.fixtures.measured import make_measured


def op(name: str, total_ns: int, *, xnnpack: bool = True) -> OpTime:
    return OpTime(name=name, xnnpack=xnnpack, total_ns=total_ns)


PROFILE = OpProfile(
    num_runs=10,
    total_ns=12_000,
    ops=(op("Convolution", 1_000), op("RESHAPE", 4_000, xnnpack=False), op("<GEMM>", 5_000)),
)


def test_the_slowest_comes_first_with_its_share() -> None:
    rows = rank_ops(PROFILE)
    assert [(row.place, row.name, row.run_ns, row.share) for row in rows] == [
        (3, "<GEMM>", 500, 0.5),
        (2, "RESHAPE", 400, 0.4),
        (1, "Convolution", 100, 0.1),
    ]


def test_what_xnnpack_did_not_run_is_named() -> None:
    rows = rank_ops(PROFILE)
    assert describe_delegation(rows) == (
        "XNNPACK ran 60.0% of the time; on the plain kernels: RESHAPE"
    )
    own = rank_ops(OpProfile(num_runs=1, ops=(op("A", 1), op("B", 2))))
    assert describe_delegation(own) == "XNNPACK ran all ops"
    plain = tuple(op(f"OP{number}", 1, xnnpack=False) for number in range(8))
    assert describe_delegation(rank_ops(OpProfile(num_runs=1, ops=plain))) == (
        "XNNPACK ran nothing; on the plain kernels: OP0, OP1, OP2, OP3, OP4, OP5 and 2 more"
    )


def test_the_page_draws_them_and_escapes_their_names() -> None:
    page = ops_part(rank_ops(PROFILE))
    assert page.count("<figure>") == 1
    assert "3. &lt;GEMM&gt;" in page
    assert "<GEMM>" not in page
    assert "The 3 ops in numbers" in page
    assert ops_part(()) == ""


def test_a_clock_that_tells_nothing_draws_no_bar() -> None:
    plot = plot_ops(rank_ops(OpProfile(num_runs=1, ops=(op("A", 0),))))
    assert plot is not None
    assert "0.0%" in plot.svg


def test_a_measurement_brings_its_ops() -> None:
    shown = summarize_measurement(replace(make_measured(), profile=PROFILE))
    assert [row.name for row in shown.ops] == ["<GEMM>", "RESHAPE", "Convolution"]
