"""A model's inputs and outputs as the user wants them: raw pixels in, classes out."""

from edgepack.contract.plan import ContractPlan, InputPlan, OutputPlan
from edgepack.contract.planning import make_plan, plan_source
from edgepack.contract.preprocessing import Head, Preprocessing
from edgepack.contract.proof import prove_shape
from edgepack.contract.request import ContractRequest, InputWish, OutputWish
from edgepack.contract.shape import shape_model

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
