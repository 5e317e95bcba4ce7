"""`milon light`: keeps what a light client has verified in a folder, and reports what it finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest
from milon.base.units import Epoch, Height, TimeMs
from milon.chain.block import Header, compute_header_hash
from milon.chain.evidence import compute_evidence_id
from milon.chain.genesis import Genesis, compute_genesis_hash
from milon.contracts.records import Account, account_key
from milon.node.folder import write_file
from milon.node.light_age import describe_genesis_age, require_near, require_young
from milon.node.light_client import Conflict, LightClient, load_trust, save_trust, trust_genesis, trust_hash
from milon.node.runner import read_clock_ms
from milon.p2p.transport import Transport

TRUST_NAME = "light.cbor"


@dataclass(frozen=True, slots=True)
class LightReport:
    """What a light client believes, and why."""

    height: Height  # of the header
    hash: Digest  # of the header
    epoch: Epoch  # of the header
    time_ms: TimeMs  # of the header
    state_root: Digest  # of the ledger after it
    trusted_height: Height  # where the trust began: 0 is the genesis
    witnesses: int  # other peers that say the same
    account: AccountId | None  # that was asked for
    record: Account | None  # proved under the state root; none: the account is proved unused, or was not asked for
    caution: str = ""  # why this is less than it seems; empty: it is not


@contextlib.contextmanager
def refusing_conflicts(folder: Path) -> Iterator[None]:
    """Turn two proved chains into `Rejected(DIFFERS)`; what convicts their signers is kept in `folder`."""
    try:
        yield
    except Conflict as conflict:
        for answer in (conflict.first, conflict.second):
            write_file(folder / f"conflict-{compute_header_hash(answer.header).hex()[:16]}.cbor", encode(answer))
        for piece in conflict.evidence:
            write_file(folder / f"evidence-{compute_evidence_id(piece).hex()[:16]}.cbor", encode(piece))
        raise Rejected(Reason.DIFFERS, f"{conflict}; both headers and the evidence are kept in {folder}") from None


async def open_client(
    folder: Path, transport: Transport, genesis: Genesis, trusted: Digest | None, now_ms: TimeMs
) -> LightClient:
    """The client that begins with what the folder keeps, else with the `trusted` hash, else with the genesis.

    `Rejected(DIFFERS)` where a hash is given and the folder's own header of that height is another; `Rejected(STALE)`
    where it would begin with a header that is too old: what the folder keeps gives way to a newer hash.
    """
    client = await _open(folder, transport, genesis, trusted)
    if client.trust.header is not None:
        require_young(client.trust.header, now_ms, genesis.parameters)
    return client


async def _open(folder: Path, transport: Transport, genesis: Genesis, trusted: Digest | None) -> LightClient:
    kept = load_trust(folder / TRUST_NAME)
    if kept is not None and kept.genesis_hash != compute_genesis_hash(genesis):
        raise Rejected(Reason.WRONG_CHAIN, f"{folder} keeps what was verified of another chain; name another folder")
    if trusted is None:
        return LightClient(transport, genesis, kept if kept is not None else trust_genesis(genesis))
    given = await trust_hash(transport, genesis, trusted)
    if kept is None or kept.height < given.height:
        return LightClient(transport, genesis, given)
    is_same = kept.height > given.height or _name(kept.header) == trusted
    require(is_same, Reason.DIFFERS, f"{folder} has verified another header at height {given.height}")
    return LightClient(transport, genesis, kept)


def _name(header: Header | None) -> Digest:
    return Digest(b"") if header is None else compute_header_hash(header)


async def light_sync(
    folder: Path,
    transport: Transport,
    genesis: Genesis,
    trusted: Digest | None,
    height: Height,
    account: AccountId | None,
    now_ms: Callable[[], TimeMs] = read_clock_ms,
) -> LightReport:
    """Follow to `height` (0: the newest), read an account if one is given, and keep what was verified.

    `Rejected(STALE)` where that begins with a header older than stake has to wait before it may be withdrawn.
    """
    client = await open_client(folder, transport, genesis, trusted, now_ms())
    start = client.trust.header
    with refusing_conflicts(folder):
        if account is not None:
            found = await client.read_value(account_key(account))
            header, value = found.answer.header, found.value
        else:
            header, value = (await client.follow(height)).header, None
    record = None if value is None else decode(Account, value)
    if start is None:
        began, caution = Height(0), describe_genesis_age(header.height, genesis.parameters)
    else:
        began, caution = start.height, ""
        require_near(start, header.height, genesis.parameters)
    save_trust(folder / TRUST_NAME, client.trust)
    return LightReport(
        header.height, compute_header_hash(header), header.epoch, header.time_ms, header.state_root,
        began, client.witnesses, account, record, caution,
    )  # fmt: skip
