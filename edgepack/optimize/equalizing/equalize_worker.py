"""The child of `equalize`; it writes `equalized.tflite`."""

from dataclasses import asdict
from typing import Any

from edgepack.optimize.equalizing.equalize import equalize_tree
from edgepack.optimize.walking.pass_process import PassJob, serve_pass


def equalize(job: PassJob) -> dict[str, Any]:
    """Equalize a model, write the result beside it and give the answer for the parent."""
    result, facts = equalize_tree(job.data, job.feeds(), folder=job.make_shelf("shelf"))
    (job.folder / "equalized.tflite").write_bytes(result)
    return asdict(facts)


if __name__ == "__main__":
    serve_pass(equalize)
