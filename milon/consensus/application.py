"""What the engine is given: the chain's fixed facts, the ledger's rules, the key, and the store it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milon.base import vrf
from milon.base.ids import AccountId, Digest, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Epoch, Height
from milon.chain.certificate import (
    Certificate,
    Validator,
    Vote,
    VoteContent,
    sign_vote,
    verify_certificate,
    verify_vote,
)
from milon.chain.evidence import Evidence
from milon.chain.genesis import Genesis, compute_genesis_hash
from milon.chain.params import Parameters, compute_parameters_hash
from milon.chain.transaction import Transaction
from milon.consensus.mempool import Standing
from milon.contracts.apply import Applied, BlockContext
from milon.state.ledger import Ledger
from milon.state.store import StoreReader


def _no_evidence(
    ledger: Ledger, candidates: Sequence[Evidence], height: Height, parameters: Parameters
) -> tuple[Evidence, ...]:
    return ()


def _no_epochs(ledger: Ledger, epoch: Epoch) -> tuple[Validator, ...]:
    raise RuntimeError(f"these rules know no validators of epoch {epoch}")


@dataclass(frozen=True, slots=True)
class Application:
    """The ledger's rules, as `milon.contracts` has them."""

    apply_block: Callable[[Ledger, BlockContext, Sequence[Transaction]], Applied]  # raises Rejected: no such block
    select_transactions: Callable[[Ledger, BlockContext, Sequence[Transaction]], tuple[Transaction, ...]]  # admissible
    is_waiting_for_blocks: Callable[[Ledger], bool]  # learning waits for the next heights
    standing_of: Callable[[Ledger, AccountId], Standing]  # a sender's, for what may wait
    validators_at: Callable[[Ledger, Epoch], tuple[Validator, ...]] = _no_epochs  # a set; none: unknown or forgotten
    select_evidence: Callable[[Ledger, Sequence[Evidence], Height, Parameters], tuple[Evidence, ...]] = _no_evidence


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
    parameters_hash: Digest  # what headers commit to
    store: StoreReader  # the newest final state; only read, and only commits by this engine change it
    application: Application  # the ledger's rules
    cryptography: Cryptography  # signing and checking
    key: SecretKey | None  # votes in the epochs whose set has its account; None: follow and never vote
    account: AccountId | None  # the key's

    @property
    def chain_id(self) -> str:
        """The chain's name under every signature."""
        return self.genesis.chain_id

    @property
    def parameters(self) -> Parameters:
        """The parameters in force."""
        return self.genesis.parameters


def make_config(
    genesis: Genesis,
    store: StoreReader,
    application: Application,
    key: SecretKey | None = None,
    cryptography: Cryptography = ED25519,
) -> Config:
    """The configuration of a node; it follows, and votes in the epochs whose validators have its key."""
    return Config(
        genesis=genesis,
        genesis_hash=compute_genesis_hash(genesis),
        parameters_hash=compute_parameters_hash(genesis.parameters),
        store=store,
        application=application,
        cryptography=cryptography,
        key=key,
        account=None if key is None else key.account,
    )
