"""How near a candidate's outputs are to a reference's; pure numpy.

Definitions, for one output over *all* samples and elements together, r the reference and c
the candidate, in float64:

- SQNR = 10 log10(sum(r**2) / sum((r - c)**2)) in dB, kept within -300 and 300. Equal arrays
  read 300; a candidate with a NaN or an infinity where the reference has another value reads
  -300, and `num_non_finite` says how many. Positions where both hold the same infinity, or
  both NaN (masks do), count as equal; an output of nothing else shows nothing, and reads -300.
- Worst channel: the least SQNR of one slice along the axis that holds channels (guessed from
  the shape: `channels`; where two may, the worse of both), among the slices whose reference is
  not all zero (SQNR says nothing of those).
- Cosine = sum(r*c) / sqrt(sum(r**2) sum(c**2)); 1 when both are all zero, 0 when one is.
- Top-1 agreement: share of rows whose largest class is the same, for float outputs of rank 2
  with two classes or more.
- An output of whole numbers (32 or 64 bits, in both) holds ids, such as the classes of an
  argmax: id 7 is no nearer to 8 than to 900. Its agreement is the share of equal ids, and its
  SQNR counts one unit of signal an id and one of noise a wrong id: 20 dB is 1% wrong.

Intervals are of 95% and for other samples of the same kind; samples are taken as independent.
`edgepack.shares` and `edgepack.comparison` define them: Wilson's of a share, Bonett and Price's
of a paired drop, and one over samples of the ratio of two sums for the SQNR.
"""

from edgepack.comparison import LIMIT_DB, Judgement
from edgepack.fidelity.compare import compare_outputs, sqnr_db
from edgepack.fidelity.record import parse_fidelity, read_fidelity, to_json
from edgepack.fidelity.values import Fidelity, MetricFidelity, OutputFidelity
from edgepack.shares import paired_drop_interval, wilson_interval

__all__ = [
    "LIMIT_DB",
    "Fidelity",
    "Judgement",
    "MetricFidelity",
    "OutputFidelity",
    "compare_outputs",
    "paired_drop_interval",
    "parse_fidelity",
    "read_fidelity",
    "sqnr_db",
    "to_json",
    "wilson_interval",
]
