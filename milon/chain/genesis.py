"""Genesis: the accounts, the validators and the parameters a chain starts from."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.units import Amount, Power, TimeMs
from milon.chain.certificate import Validator
from milon.chain.params import EPOCH_NEVER_ENDS, Parameters
from milon.pol.terms import COMMITTEE_MAX

SUPPLY_MAX = 1 << 60  # sums of amounts stay inside 63 bits
BLOCKS_MAX = 1 << 32  # of a delay: heights plus delays stay inside 63 bits
VALIDATORS_MAX = 512  # a certificate of all of them is 50 KiB
LAPSE_PPM_MAX = 100_000  # a lapse may be a power cut: it costs a slice and never what a lie does
EPOCHS_KEPT_MAX = 64  # past sets that the ledger holds for evidence: 23 KiB each at most


@wire("genesis-account/1")
@dataclass(frozen=True, slots=True)
class GenesisAccount:
    """An account's coins at the start."""

    account: AccountId  # whose
    balance: Amount  # free to spend
    bonded: Amount  # at stake
    is_validator: bool  # whether the stake votes


@wire("genesis/1")
@dataclass(frozen=True, slots=True)
class Genesis:
    """Where a chain starts."""

    chain_id: str  # 1 to 64 characters
    time_ms: TimeMs  # of the start
    parameters: Parameters  # see there
    accounts: tuple[GenesisAccount, ...]  # in order, no duplicates


def compute_genesis_hash(genesis: Genesis) -> Digest:
    """Names the chain; what a newcomer must know."""
    return digest("genesis", encode(genesis))


def compute_genesis_beacon(genesis: Genesis) -> Digest:
    """The parent beacon of the first block."""
    return digest("genesis-beacon", compute_genesis_hash(genesis))


def validators_of(genesis: Genesis) -> tuple[Validator, ...]:
    """The validator set, in order of account."""
    return tuple(Validator(entry.account, Power(entry.bonded)) for entry in genesis.accounts if entry.is_validator)


def verify_genesis(genesis: Genesis) -> None:
    """Raise `Rejected` unless the chain id, the order of accounts, the supply and the validators are sound."""
    require(1 <= len(genesis.chain_id) <= 64, Reason.OUT_OF_RANGE, "a chain id has 1 to 64 characters")
    parameters = genesis.parameters
    require(parameters.slash_ppm <= 1_000_000, Reason.OUT_OF_RANGE, "a slash of more than everything")
    require(parameters.block_time_ms >= 1, Reason.OUT_OF_RANGE, "deadlines count block times of at least a millisecond")
    for name, blocks in (("beacon", parameters.beacon_delay_blocks), ("unbonding", parameters.unbond_blocks)):
        require(1 <= blocks <= BLOCKS_MAX, Reason.OUT_OF_RANGE, f"a {name} delay of {blocks} blocks")
    _verify_epochs(parameters)
    _verify_learning(parameters)
    accounts = [entry.account for entry in genesis.accounts]
    require(accounts == sorted(set(accounts)), Reason.NOT_CANONICAL, "accounts are out of order or double")
    supply = sum(entry.balance + entry.bonded for entry in genesis.accounts)
    require(supply <= SUPPLY_MAX, Reason.OUT_OF_RANGE, f"a supply of {supply}; {SUPPLY_MAX} is the most")
    validators = validators_of(genesis)
    is_fixed = parameters.epoch_blocks >= EPOCH_NEVER_ENDS
    most = VALIDATORS_MAX if is_fixed else int(parameters.validators_max)
    require(1 <= len(validators) <= most, Reason.OUT_OF_RANGE, f"{len(validators)} validators, {most} are the most")
    require(all(validator.power > 0 for validator in validators), Reason.OUT_OF_RANGE, "a validator without stake")


def _verify_learning(parameters: Parameters) -> None:
    """Raise `Rejected` unless penalties are what they say, a slice or a share, and jobs can keep within the bounds."""
    bounds = (
        ("lapse_ppm", parameters.lapse_ppm, LAPSE_PPM_MAX),
        ("withhold_ppm", parameters.withhold_ppm, parameters.slash_ppm),
        ("audit_ppm_min", parameters.audit_ppm_min, 1_000_000),
        ("committee_size_min", parameters.committee_size_min, COMMITTEE_MAX),
        ("deadline_blocks_min", parameters.deadline_blocks_min, BLOCKS_MAX),
    )
    for name, value, most in bounds:
        require(value <= most, Reason.OUT_OF_RANGE, f"{name} is {value}; it may be {most} at most")


def _verify_epochs(parameters: Parameters) -> None:
    """Raise `Rejected` unless sets can change and offenders be slashed by these parameters."""
    for name, ppm in (
        ("power cap", parameters.power_cap_ppm),
        ("learning", parameters.learning_ppm),
        ("protocol fee", parameters.protocol_fee_ppm),
        ("evidence slash", parameters.evidence_slash_ppm),
        ("jail", parameters.jail_missed_ppm),
    ):
        require(ppm <= 1_000_000, Reason.OUT_OF_RANGE, f"a {name} share of more than everything")
    require(parameters.power_cap_ppm >= 1, Reason.OUT_OF_RANGE, "a power cap of nothing")
    is_epoch = 1 <= parameters.epoch_blocks <= EPOCH_NEVER_ENDS
    require(is_epoch, Reason.OUT_OF_RANGE, f"an epoch of {parameters.epoch_blocks} blocks")
    members = parameters.validators_max
    require(1 <= members <= VALIDATORS_MAX, Reason.OUT_OF_RANGE, f"sets of at most {members} validators")
    age, waiting = parameters.evidence_age_blocks, parameters.unbond_blocks
    require(age >= 1, Reason.OUT_OF_RANGE, "evidence must live for a block at least")
    is_reached = age < waiting
    require(is_reached, Reason.OUT_OF_RANGE, f"stake leaves after {waiting} blocks, evidence lives for {age}")
    epochs = age // parameters.epoch_blocks
    require(epochs <= EPOCHS_KEPT_MAX, Reason.OUT_OF_RANGE, f"evidence that lives for {epochs} epochs")
    require(parameters.jail_blocks <= BLOCKS_MAX, Reason.OUT_OF_RANGE, f"a jail of {parameters.jail_blocks} blocks")
    require(parameters.evidence_correlation <= 1_000_000, Reason.OUT_OF_RANGE, "a correlation beyond everything")
    is_payable = parameters.block_reward <= SUPPLY_MAX
    require(is_payable, Reason.OUT_OF_RANGE, f"a block reward of {parameters.block_reward}")
