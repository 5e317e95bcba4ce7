"""What the engine is given: the chain's fixed facts, the ledger's rules, the key, and the store it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milon.base import vrf
from milon.base.ids import AccountId, Digest, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Epoch
from milon.chain.certificate import (
    Certificate,
    Validator,
    Vote,
    VoteContent,
    compute_validators_hash,
    sign_vote,
    verify_certificate,
    verify_vote,
)
from milon.chain.genesis import Genesis, compute_genesis_hash, validators_of
from milon.chain.params import Parameters, compute_parameters_hash
from milon.chain.transaction import Transaction
from milon.consensus.leader import list_leaders
from milon.consensus.mempool import Standing
from milon.contracts.apply import Applied, BlockContext
from milon.state.ledger import Ledger
from milon.state.store import StoreReader

EPOCH = Epoch(0)  # the validator set is fixed in genesis: there is one epoch


@dataclass(frozen=True, slots=True)
class Application:
    """The ledger's rules, as `milon.contracts` has them."""

    apply_block: Callable[[Ledger, BlockContext, Sequence[Transaction]], Applied]  # raises Rejected: no such block
    select_transactions: Callable[[Ledger, BlockContext, Sequence[Transaction]], tuple[Transaction, ...]]  # admissible
    is_waiting_for_blocks: Callable[[Ledger], bool]  # learning waits for the next heights
    standing_of: Callable[[Ledger, AccountId], Standing]  # a sender's, for what may wait


@dataclass(frozen=True, slots=True)
class Cryptography:
    """Signing and checking; the engine calls nothing else of the kind."""

    sign_vote: Callable[[SecretKey, str, VoteContent], Vote]  # key, chain id, content
    verify_vote: Callable[[Vote, str], None]  # vote, chain id; raises Rejected
    verify_certificate: Callable[[Certificate, str, Sequence[Validator]], None]  # and chain id; raises Rejected
    prove: Callable[[SecretKey, bytes], VrfProof]  # key, input
    verify_proof: Callable[[AccountId, bytes, VrfProof], bytes]  # the output; raises Rejected


ED25519 = Cryptography(sign_vote, verify_vote, verify_certificate, vrf.prove, vrf.verify)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that stays the same while a node runs."""

    genesis: Genesis  # of the chain
    genesis_hash: Digest  # its name
    validators: tuple[Validator, ...]  # in order of account
    leaders: tuple[AccountId, ...]  # of one schedule
    validators_hash: Digest  # what headers commit to
    parameters_hash: Digest  # what headers commit to
    store: StoreReader  # the newest final state; only read, and only commits by this engine change it
    application: Application  # the ledger's rules
    cryptography: Cryptography  # signing and checking
    key: SecretKey | None  # of a validator; None: follow and never vote
    account: AccountId | None  # the key's

    @property
    def chain_id(self) -> str:
        """The chain's name under every signature."""
        return self.genesis.chain_id

    @property
    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self.genesis.parameters

    @property
    def total_power(self) -> int:
        """The power of all validators together."""
        return sum(validator.power for validator in self.validators)


def make_config(
    genesis: Genesis,
    store: StoreReader,
    application: Application,
    key: SecretKey | None = None,
    cryptography: Cryptography = ED25519,
) -> Config:
    """The configuration of a node; a key that is not a validator's is left out, and the node only follows."""
    validators = validators_of(genesis)
    account = None if key is None else key.account
    if all(validator.account != account for validator in validators):
        key = account = None
    return Config(
        genesis=genesis,
        genesis_hash=compute_genesis_hash(genesis),
        validators=validators,
        leaders=list_leaders(validators),
        validators_hash=compute_validators_hash(validators),
        parameters_hash=compute_parameters_hash(genesis.parameters),
        store=store,
        application=application,
        cryptography=cryptography,
        key=key,
        account=account,
    )
