"""How old a header may be that trust begins with: no older than stake has to wait before it may be withdrawn.

Whoever voted for a block answers for it with stake as long as that stake is there. Once it may be gone, its owners can
sign another history at no risk, and nothing in the bytes tells the two apart. So a trusted header must be younger, by
the chain's own count of blocks as far as it is proved, and by this machine's clock, which no peer can turn back.
"""

from __future__ import annotations

from milon.base.errors import Reason, require
from milon.base.ids import short
from milon.base.units import Height, TimeMs
from milon.chain.block import Header, compute_header_hash
from milon.chain.params import EPOCH_NEVER_ENDS, Parameters

NEXT_STEP = (
    "whoever held that stake can have signed another history since, at no risk, so nothing was taken from it; ask "
    "somebody you believe for the hash of a recent block (`milon block show latest`) and give it as --trusted-hash"
)


def compute_trust_blocks(parameters: Parameters) -> int | None:
    """For how many blocks a header may be trusted; None: for ever, since the stake that votes can never leave."""
    return None if parameters.epoch_blocks >= EPOCH_NEVER_ENDS else int(parameters.unbond_blocks)


def require_young(header: Header, now_ms: TimeMs, parameters: Parameters) -> None:
    """`Rejected(STALE)` where the trusted header is older than stake has to wait, by the clock.

    That is `unbond_blocks` pauses of an idle chain. It makes blocks no faster; a busy one does, and is judged by
    `require_near` too.
    """
    blocks = compute_trust_blocks(parameters)
    if blocks is None:
        return
    age_s, limit_s = (now_ms - header.time_ms) // 1_000, blocks * parameters.block_time_ms // 1_000
    require(
        age_s <= limit_s,
        Reason.STALE,
        f"the trusted block {header.height} ({_name(header)}) is {age_s} s old, and stake that voted for it may be "
        f"withdrawn after {blocks} blocks, about {limit_s} s; {NEXT_STEP}",
    )


def require_near(header: Header, proved: Height, parameters: Parameters) -> None:
    """`Rejected(STALE)` where the header proved from the trusted one is further up than stake has to wait."""
    blocks = compute_trust_blocks(parameters)
    require(
        blocks is None or proved <= header.height + blocks,
        Reason.STALE,
        f"the trusted block {header.height} ({_name(header)}) is {proved - header.height} blocks below block {proved}, "
        f"and stake that voted for it may be withdrawn after {blocks}; {NEXT_STEP}",
    )


def describe_genesis_age(proved: Height, parameters: Parameters) -> str:
    """What to say of a header proved from the genesis alone; empty where that is as good as any."""
    blocks = compute_trust_blocks(parameters)
    if blocks is None or proved <= blocks:
        return ""
    return (
        f"this began at the genesis, {proved} blocks below, and stake may be withdrawn after {blocks}: whoever held it "
        "then can show another history; give --trusted-hash with the hash of a recent block from somebody you believe"
    )


def _name(header: Header) -> str:
    return short(compute_header_hash(header))
