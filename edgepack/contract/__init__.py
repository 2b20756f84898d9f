"""A model's inputs and outputs as the user wants them: raw pixels in, classes out.

Names are imported when they are asked for: who opens a bundle needs its I/O contract alone, and
planning one takes the importers with it, half a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgepack.contract.plan import ContractPlan, InputPlan, OutputPlan
    from edgepack.contract.planning import make_plan, plan_source
    from edgepack.contract.preprocessing import Head, Preprocessing
    from edgepack.contract.proof import prove_shape
    from edgepack.contract.request import ContractRequest, InputWish, OutputWish
    from edgepack.contract.shape import shape_model

_MODULES: Final = {
    **dict.fromkeys(("ContractPlan", "InputPlan", "OutputPlan"), "plan"),
    **dict.fromkeys(("make_plan", "plan_source"), "planning"),
    **dict.fromkeys(("Head", "Preprocessing"), "preprocessing"),
    "prove_shape": "proof",
    **dict.fromkeys(("ContractRequest", "InputWish", "OutputWish"), "request"),
    "shape_model": "shape",
}

__all__ = [
    "ContractPlan",
    "ContractRequest",
    "Head",
    "InputPlan",
    "InputWish",
    "OutputPlan",
    "OutputWish",
    "Preprocessing",
    "make_plan",
    "plan_source",
    "prove_shape",
    "shape_model",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has its own type, as seen above
    """Import what is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
