"""The whole table of operations a program may use, and the check of one call."""

from __future__ import annotations

from milon.base.errors import Reason, Rejected, require
from milon.pol.elementwise import ELEMENTWISE
from milon.pol.shapes import verify_shape
from milon.pol.table import Attributes, Operands, Operation, Outcome
from milon.pol.windows import WINDOWS

OPERATIONS: dict[str, Operation] = {**ELEMENTWISE, **WINDOWS}


def check_call(name: str, operands: Operands, attributes: Attributes) -> Outcome:
    """What operation `name` gives for operands of these types; `Rejected` when unknown or not accepted."""
    known = OPERATIONS.get(name)
    if known is None:
        raise Rejected(Reason.UNSUPPORTED, f"no operation {name[:64]!r}")
    least, most = known.operands
    if not least <= len(operands) <= most:
        raise Rejected(Reason.MALFORMED, f"{len(operands)} operands")
    if len(attributes) != len(known.attributes):
        raise Rejected(Reason.MALFORMED, f"{len(attributes)} attributes where {len(known.attributes)} are needed")
    for attribute, length in zip(attributes, known.attributes, strict=True):
        require(length in (-1, len(attribute)), Reason.MALFORMED, f"an attribute of {len(attribute)} integers")
        require(len(attribute) <= 64, Reason.MALFORMED, f"an attribute of {len(attribute)} integers")
    outcome = known.check(operands, attributes)
    verify_shape(outcome.type.shape)
    return outcome
