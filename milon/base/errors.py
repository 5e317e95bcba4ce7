"""One exception for bad input, with a reason a program can act on; a broken invariant simply crashes."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a peer's bytes, a user's file or a transaction was refused. Stable: receipts and exit codes hold them."""

    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    NOT_CANONICAL = "not-canonical"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    BAD_SIGNATURE = "bad-signature"
    BAD_PROOF = "bad-proof"
    WRONG_CHAIN = "wrong-chain"
    WRONG_NONCE = "wrong-nonce"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    UNKNOWN = "unknown"
    DUPLICATE = "duplicate"
    NOT_ALLOWED = "not-allowed"
    NOT_NOW = "not-now"
    STALE = "stale"
    FULL = "full"
    UNSUPPORTED = "unsupported"
    OVER_BUDGET = "over-budget"
    NOT_FINITE = "not-finite"
    DOES_NOT_FIT = "does-not-fit"
    UNAVAILABLE = "unavailable"
    DIFFERS = "differs"
    TOO_FEW = "too-few"
    CORRUPT = "corrupt"
    IN_USE = "in-use"


class Rejected(Exception):
    """Bad input, refused: nothing changed. `reason` is for programs, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Rejected"], tuple[Reason, str]]:
        """Rebuild from both arguments, so that the error crosses a process boundary whole."""
        return (Rejected, (self.reason, self.detail))


def require(condition: bool, reason: Reason, detail: str) -> None:
    """Raise `Rejected(reason, detail)` unless `condition` holds."""
    if not condition:
        raise Rejected(reason, detail)
