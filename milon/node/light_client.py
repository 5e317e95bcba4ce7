"""A light client: from one trusted header to any other, by certificates and the chain of validator sets alone.

It holds a header it trusts and the validators of that header's epoch. Inside an epoch any later header follows at once:
its certificate carries a quorum of those validators. The way into the next epoch leads over this one's last header,
which names the next set by its hash. So the work grows with epochs and not with blocks.

What is final is asked of a second peer as well. Two headers of one height, both proved, are more than a third of the
stake signing against each other: the client stops, trusts neither, and makes the evidence that can be made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest, short
from milon.base.units import Epoch, Height
from milon.chain.block import Header, compute_header_hash
from milon.chain.certificate import Validator, Vote, compute_validators_hash
from milon.chain.evidence import Contradiction, find_offence, make_contradiction, verify_evidence
from milon.chain.finality import verify_finality
from milon.chain.genesis import Genesis, compute_genesis_hash, validators_of
from milon.chain.params import compute_epoch, compute_last_height
from milon.node.folder import read_file, write_file
from milon.node.questions import AskBlock, AskHeader, AskState, BlockAnswer, HeaderAnswer, StateAnswer
from milon.p2p.transport import Channel, PeerId, Transport
from milon.state.commitment import verify_absence, verify_membership

ASK_S = 10.0  # one question to one peer
TRUST_MAX_BYTES = 1 << 20  # a header and the largest validator set


@wire("light-trust/1")
@dataclass(frozen=True, slots=True)
class Trust:
    """What a light client believes and builds on."""

    genesis_hash: Digest  # of the chain
    header: Header | None  # the newest header verified; none: nothing but the genesis
    epoch: Epoch  # of the header, or the one after it where that was the last of its epoch
    validators: tuple[Validator, ...]  # of that epoch

    @property
    def height(self) -> Height:
        """Of the header; 0 for genesis."""
        return Height(0) if self.header is None else self.header.height


class Conflict(Exception):
    """Two headers of one height are both proved final: the chain, or the trust it is seen with, is broken."""

    def __init__(self, first: HeaderAnswer, second: HeaderAnswer, evidence: tuple[Contradiction, ...]) -> None:
        names = " and ".join(compute_header_hash(answer.header).hex() for answer in (first, second))
        who = ", ".join(short(piece.first.signer) for piece in evidence) or "nobody: the two are of different views"
        super().__init__(
            f"two final headers at height {first.header.height}: {names}; neither is trusted; votes that contradict "
            f"each other are by {who}; ask the operators of several nodes which chain is theirs"
        )
        self.first = first
        self.second = second
        self.evidence = evidence


def trust_genesis(genesis: Genesis) -> Trust:
    """The trust of somebody who knows the genesis hash."""
    return Trust(compute_genesis_hash(genesis), None, Epoch(0), validators_of(genesis))


def verify_header(genesis: Genesis, answer: HeaderAnswer, validators: Sequence[Validator]) -> None:
    """Raise `Rejected` unless the answer's header is of the chain and final by those validators of its epoch."""
    header = answer.header
    require(header.chain_id == genesis.chain_id, Reason.WRONG_CHAIN, "a header of another chain")
    epoch = compute_epoch(header.height, genesis.parameters)
    require(header.height > 0 and header.epoch == epoch, Reason.BAD_PROOF, "a height of another epoch")
    is_of_set = compute_validators_hash(validators) == header.validators_hash
    require(is_of_set, Reason.BAD_PROOF, "a header of another validator set")
    verify_finality(header, answer.proof, validators)


def make_evidence(first: HeaderAnswer, second: HeaderAnswer) -> tuple[Contradiction, ...]:
    """What two finalizations of different blocks say against those who signed both, where they are of one view.

    Of different views the later chain skips the earlier one's view, which takes a nullification of it: whoever signed
    that and the finalization is at fault, and only nodes that hold the nullification can show it.
    """
    votes: dict[AccountId, Vote] = {}
    for account, signature in zip(first.proof.finalization.signers, first.proof.finalization.signatures, strict=True):
        votes[account] = Vote(first.proof.finalization.content, account, signature)
    found: list[Contradiction] = []
    other = second.proof.finalization
    for account, signature in zip(other.signers, other.signatures, strict=True):
        vote = votes.get(account)
        if vote is not None and find_offence(vote.content, other.content) is not None:
            found.append(make_contradiction(vote, Vote(other.content, account, signature)))
    return tuple(found)


class LightClient:
    """Follows the chain from a trusted header over a connected transport."""

    def __init__(self, transport: Transport, genesis: Genesis, trust: Trust) -> None:
        """`genesis` is checked already; `trust` must be of it: `Rejected(WRONG_CHAIN)` otherwise."""
        is_ours = trust.genesis_hash == compute_genesis_hash(genesis)
        require(is_ours, Reason.WRONG_CHAIN, "what is trusted belongs to another chain")
        self._transport = transport
        self._genesis = genesis
        self.trust = trust
        self.witnesses = 0  # peers that told the same as the first, of the last header asked for

    async def _ask_peer(self, peer: PeerId, height: Height) -> HeaderAnswer:
        raw = await self._transport.request(peer, Channel.SYNC, encode(AskHeader(height)), timeout_s=ASK_S)
        try:
            return decode(HeaderAnswer, raw)
        except Rejected as error:
            self._transport.report(peer, error.reason)
            raise

    async def _ask(self, height: Height, check: Callable[[HeaderAnswer], None]) -> tuple[HeaderAnswer, PeerId]:
        """The first answer that passes `check`; a peer whose answer fails it is reported."""
        refusal = Rejected(Reason.UNAVAILABLE, "no peer is connected")
        for peer in self._transport.peers():
            try:
                answer = await self._ask_peer(peer, height)
            except Rejected as error:
                refusal = error
                continue
            try:
                require(height in (0, answer.header.height), Reason.DIFFERS, "the peer sent another height")
                check(answer)
            except Rejected as error:
                self._transport.report(peer, error.reason)
                refusal = error
                continue
            return answer, peer
        raise refusal

    async def _enter_epoch(self, epoch: Epoch) -> None:
        """Over the last header of the present epoch into the next one."""
        genesis, before = self._genesis, self.trust
        last = compute_last_height(before.epoch, genesis.parameters)
        ending, _ = await self._ask(last, lambda answer: verify_header(genesis, answer, before.validators))
        wanted = ending.header.next_validators_hash

        def check(answer: HeaderAnswer) -> None:
            found = compute_validators_hash(answer.validators)
            require(found == wanted, Reason.BAD_PROOF, "not the validators that the epoch before names")
            verify_header(genesis, answer, answer.validators)

        beginning, _ = await self._ask(Height(last + 1), check)
        self.trust = Trust(before.genesis_hash, ending.header, Epoch(before.epoch + 1), beginning.validators)
        require(self.trust.epoch <= epoch, Reason.BAD_PROOF, "an epoch beyond the one that was asked for")

    async def follow(self, height: Height) -> HeaderAnswer:
        """The final header at `height` (0: the newest), which must not lie below an epoch that was left behind.

        The trust moves there if it is the newest. Raises `Conflict` where a witness proves another one, `Rejected`
        where nobody can prove any.
        """
        if height == 0:
            return await self._follow_newest()
        epoch = compute_epoch(height, self._genesis.parameters)
        is_ahead = epoch >= self.trust.epoch
        require(is_ahead, Reason.STALE, f"height {height} lies in an epoch before what is trusted")
        while self.trust.epoch < epoch:
            await self._enter_epoch(epoch)
        validators = self.trust.validators
        answer, peer = await self._ask(height, lambda found: verify_header(self._genesis, found, validators))
        await self._cross_check(answer, peer)
        if answer.header.height > self.trust.height:
            self._move_to(answer.header)
        return answer

    def _move_to(self, header: Header) -> None:
        is_last = header.height == compute_last_height(header.epoch, self._genesis.parameters)
        if not is_last:  # the set of the next epoch is learned on the way into it
            self.trust = Trust(self.trust.genesis_hash, header, header.epoch, self.trust.validators)

    async def _follow_newest(self) -> HeaderAnswer:
        """The newest header of which any peer knows: what each says is a claim until certificates prove it."""
        claimed: set[Height] = set()
        for peer in self._transport.peers():
            try:
                answer = await self._ask_peer(peer, Height(0))
            except Rejected:
                continue
            claimed.add(answer.header.height)
        refusal = Rejected(Reason.UNAVAILABLE, "no peer has a final header")
        for height in sorted(claimed - {Height(0)}, reverse=True):
            try:
                return await self.follow(height)
            except Rejected as error:
                refusal = error
        raise refusal

    async def _cross_check(self, answer: HeaderAnswer, source: PeerId) -> None:
        """Ask the other peers for the same height; `Conflict` where one proves another header."""
        self.witnesses = 0
        name = compute_header_hash(answer.header)
        for peer in self._transport.peers():
            if peer == source:
                continue
            try:
                other = await self._ask_peer(peer, answer.header.height)
                if compute_header_hash(other.header) != name:
                    require(other.header.height == answer.header.height, Reason.DIFFERS, "another height")
                    verify_header(self._genesis, other, self.trust.validators)
                    raise Conflict(answer, other, self._verified(make_evidence(answer, other)))
            except Rejected as error:
                if error.reason is not Reason.UNAVAILABLE:
                    self._transport.report(peer, error.reason)
                continue
            self.witnesses += 1

    def _verified(self, evidence: tuple[Contradiction, ...]) -> tuple[Contradiction, ...]:
        for piece in evidence:
            verify_evidence(piece, self._genesis.chain_id, self.trust.validators)
        return evidence

    async def read_value(self, key: bytes) -> StateAnswer:
        """The value under a ledger key, or its absence, at a header that this client has verified."""
        refusal = Rejected(Reason.UNAVAILABLE, "no peer is connected")
        for peer in self._transport.peers():
            try:
                raw = await self._transport.request(peer, Channel.SYNC, encode(AskState(key)), timeout_s=ASK_S)
                found = decode(StateAnswer, raw)
                header = found.answer.header
                known = await self.follow(header.height)
                is_known = compute_header_hash(known.header) == compute_header_hash(header)
                require(is_known, Reason.BAD_PROOF, "a value under a header that is not the chain's")
                if found.value is None:
                    verify_absence(header.state_root, key, found.proof)
                else:
                    verify_membership(header.state_root, key, found.value, found.proof)
            except Rejected as error:
                if error.reason is not Reason.UNAVAILABLE:
                    self._transport.report(peer, error.reason)
                refusal = error
                continue
            return found
        raise refusal


async def trust_hash(transport: Transport, genesis: Genesis, name: Digest) -> Trust:
    """The trust of somebody who knows the hash of a recent header: the header of that hash, and its validators.

    The hash vouches for the header, and the header for its validators; no certificate is needed.
    """
    refusal = Rejected(Reason.UNAVAILABLE, "no peer is connected")
    for peer in transport.peers():
        try:
            raw = await transport.request(peer, Channel.SYNC, encode(AskBlock(name)), timeout_s=ASK_S)
            header = decode(BlockAnswer, raw).block.header
            require(compute_header_hash(header) == name, Reason.DIFFERS, "the peer sent another block")
            require(header.chain_id == genesis.chain_id, Reason.WRONG_CHAIN, "the trusted hash is of another chain")
            raw = await transport.request(peer, Channel.SYNC, encode(AskHeader(header.height)), timeout_s=ASK_S)
            validators = decode(HeaderAnswer, raw).validators
            is_set = compute_validators_hash(validators) == header.validators_hash
            require(is_set, Reason.BAD_PROOF, "not the validators that the trusted header names")
        except Rejected as error:
            if error.reason not in (Reason.UNAVAILABLE, Reason.UNKNOWN):
                transport.report(peer, error.reason)
            refusal = error
            continue
        return Trust(compute_genesis_hash(genesis), header, header.epoch, validators)
    raise refusal


def save_trust(path: Path, trust: Trust) -> None:
    """Keep what was verified; it is not secret, and whoever can change the file can change what is believed."""
    write_file(path, encode(trust))


def load_trust(path: Path) -> Trust | None:
    """What was kept; None where nothing was."""
    return decode(Trust, read_file(path, TRUST_MAX_BYTES)) if path.exists() else None
