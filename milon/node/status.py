"""The newest snapshot of a node, for its status page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milon.base.ids import AccountId, Digest
from milon.base.units import Height
from milon.chain.certificate import Validator
from milon.chain.genesis import Genesis
from milon.consensus.state import State
from milon.contracts.accounts import load_account, load_supply
from milon.node.view import PeerView, StatusView, WorkView
from milon.p2p.transport import PeerCounters, PeerId, Transport
from milon.state.ledger import Ledger
from milon.state.store import Store
from milon.version import VERSION

NUMERICS = "exact/1"
SYNCING_BLOCKS = 3  # behind by more than this is catching up, not the news of the moment


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is."""

    account: AccountId  # its key
    role: str  # a `config.Role`
    genesis_hash: Digest  # of its chain
    validators: tuple[Validator, ...]  # of the epoch


def _peer_views(transport: Transport, address_of: Callable[[PeerId], str]) -> tuple[PeerView, ...]:
    counters = transport.counters()
    views: list[PeerView] = []
    for peer in transport.peers():
        count = counters.get(peer, PeerCounters())
        views.append(PeerView(peer, address_of(peer), count.bytes_in, count.bytes_out, count.rejects))
    return tuple(views)


def _is_syncing(state: State) -> bool:
    """Whether there are final blocks that are not here: of this epoch, or, asked for at least once, of a later one."""
    is_behind = state.ahead.epoch > state.members.epoch and state.ahead.attempts > 0
    return is_behind or state.final_view > state.tip.view + SYNCING_BLOCKS


def build_status(
    identity: Identity,
    genesis: Genesis,
    state: State,
    store: Store,
    transport: Transport,
    address_of: Callable[[PeerId], str],
    working: Sequence[WorkView],
) -> StatusView:
    """The node at a glance, from its finalized ledger and its engine."""
    ledger = Ledger(store)
    tip = store.tip()
    height = tip[0] if tip is not None else Height(0)
    account = load_account(ledger, identity.account)
    supply = load_supply(ledger)
    return StatusView(
        version=VERSION,
        numerics=NUMERICS,
        chain_id=genesis.chain_id,
        genesis_hash=identity.genesis_hash,
        account=identity.account,
        role=identity.role,
        peer_id=transport.peer_id,
        addresses=transport.addresses,
        height=height,
        tip_hash=tip[1] if tip is not None else identity.genesis_hash,
        tip_time_ms=state.tip.time_ms,
        epoch=state.members.epoch,
        view=state.view,
        is_syncing=_is_syncing(state),
        peers=_peer_views(transport, address_of),
        validators=state.members.validators,
        working=tuple(working),
        mempool_count=len(state.mempool.entries),
        balance=account.balance,
        bonded=account.bonded,
        minted=supply.minted,
        burned=supply.burned,
    )
