"""Who votes and leads in an epoch, and which blocks are only there to end one."""

from __future__ import annotations

from functools import lru_cache

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import Epoch, Height, View
from milon.chain.certificate import Validator, compute_validators_hash
from milon.chain.genesis import validators_of
from milon.chain.header import Header
from milon.chain.params import Parameters, compute_epoch, compute_last_height
from milon.consensus.application import Config
from milon.consensus.leader import leader_of, list_leaders
from milon.consensus.state import Ancestor, Members, State
from milon.state.ledger import Ledger


@lru_cache(maxsize=16)  # a schedule of the largest set takes a second to compute
def make_members(epoch: Epoch, validators: tuple[Validator, ...], parameters: Parameters) -> Members:
    """The members of an epoch with these validators."""
    leaders = list_leaders(validators, int(parameters.learning_ppm))
    last_height = compute_last_height(epoch, parameters)
    accounts = frozenset(validator.account for validator in validators)
    return Members(epoch, validators, accounts, compute_validators_hash(validators), leaders, last_height)


def load_members(config: Config, ledger: Ledger, height: Height) -> Members:
    """The members for the block on top of `height`, after which the ledger stands."""
    epoch = compute_epoch(Height(height + 1), config.parameters)
    validators = config.application.validators_at(ledger, epoch) if epoch else validators_of(config.genesis)
    return make_members(epoch, validators, config.parameters)


def validators_in(config: Config, state: State, ledger: Ledger, epoch: Epoch) -> tuple[Validator, ...]:
    """The validators of this epoch or an earlier one; `Rejected(UNKNOWN)` where `ledger` has forgotten them."""
    require(epoch <= state.members.epoch, Reason.UNKNOWN, f"epoch {epoch} has not begun")
    if epoch == state.members.epoch:
        return state.members.validators
    return config.application.validators_at(ledger, epoch)


def voter_of(config: Config, state: State) -> AccountId | None:
    """This node's account if it votes in the current epoch."""
    return config.account if config.account in state.members.accounts else None


def leader_in(members: Members, view: View) -> AccountId:
    """The leader of a view of the epoch."""
    return leader_of(members.leaders, members.epoch, view)


def compute_child_height(members: Members, parent: Ancestor) -> Height:
    """One more than the parent's; fillers all lie one above the epoch's last block."""
    return Height(min(parent.height, members.last_height) + 1)


def is_filler(members: Members, header: Header) -> bool:
    """Whether the block changes nothing: it lies above its epoch's last block, to make that one final."""
    return header.height > members.last_height
