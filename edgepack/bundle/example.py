"""The program of a bundle that runs its model on a device: a template and the contract."""

import json
from importlib import resources
from typing import Any, Final

from edgepack.contract.record import IOContract, contract_to_json
from edgepack.model import Signature, signature_to_json

EXAMPLE_PATH: Final = "example.py"
_TEMPLATE: Final = "example.py"
# The template's own contract, which no model has.
_PLACE: Final = 'r"""{}"""'


def make_example(
    signature: Signature,
    contract: IOContract,
    *,
    name: str,
    version: str,
    model_path: str,
    labels_path: str | None,
) -> bytes:
    """Give `example.py` for a model; the same arguments give the same bytes.

    Names come from model files that anyone may have made, so they stand in it as JSON inside
    a raw string that no character of theirs can end.

    Args:
        signature: the packed model's inputs and outputs.
        contract: what they want and mean.
        name: of the bundle.
        version: of the bundle.
        model_path: of the model in the bundle.
        labels_path: of the class names in the bundle; None without any.
    """
    tables: dict[str, Any] = contract_to_json(contract, signature)
    parameters: dict[str, Any] = signature_to_json(signature)
    whole: dict[str, Any] = {
        "name": name,
        "version": version,
        "model": model_path,
        "labels": labels_path,
    }
    for side in ("inputs", "outputs"):
        whole[side] = [
            {**table, "quantization": spec["quantization"]}
            for table, spec in zip(tables[side], parameters[side], strict=True)
        ]
    text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False)
    # JSON needs no apostrophe outside of texts, and may spell it so inside.
    literal = "r'''" + text.replace("'", "\\u0027") + "'''"
    template = (resources.files("edgepack.runner") / _TEMPLATE).read_text(encoding="utf-8")
    before, place, after = template.partition(_PLACE)
    if not place:
        raise ValueError(f"the template has no {_PLACE}")
    return f"{before}{literal}{after}".encode()
