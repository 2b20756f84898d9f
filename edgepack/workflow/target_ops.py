"""What the runtime of a target's devices would make of a model's ops; without a device at hand."""

from edgepack.device.preflight.fit import SYSTEMS
from edgepack.device.runtime.op_support import OpFault, find_op_support, judge_ops
from edgepack.device.runtime.wheels import find_first_engine
from edgepack.model import Model
from edgepack.profile import TargetProfile
from edgepack.workload import read_workload


def find_target_faults(model: Model, profile: TargetProfile) -> tuple[OpFault, ...]:
    """Find the ops that the runtime of a target's devices does not load or is known to get wrong.

    The runtime is the best one that there is for the target's architecture. A device with an
    older Python or C library may get an older one: on it, the golden check has the last word.
    """
    engine = find_first_engine(SYSTEMS[profile.os], profile.hardware.arch)
    support = None if engine is None else find_op_support(*engine)
    return () if support is None else judge_ops(read_workload(model.data).ops, support)
