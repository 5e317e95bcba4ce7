"""What must hold at every moment of every run, whatever goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.merkle import EMPTY_ROOT as EMPTY_LIST
from milon.base.merkle import compute_root
from milon.chain.block import Header, compute_beacon, compute_header_hash, compute_receipts_root, compute_vrf_input
from milon.chain.certificate import Certificate, Vote, VoteKind
from milon.chain.finality import decode_finality
from milon.consensus.effects import Accuse, Blame, CommitBlocks, Effect, FinalizedBlock, Persist, ProposalRefused, Send
from milon.consensus.messages import LoggedCertificate, Message, Proposal
from milon.consensus.tally import VIEW_WINDOW
from milon.contracts.accounts import load_account, load_supply, load_validators
from milon.contracts.validators import load_validator, load_validators_at
from milon.node.application import CONTRACTS
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.ledger import Ledger
from tests.contracts.helpers import compute_held
from tests.simulation.beliefs import Judging, Unbearable, Violation

if TYPE_CHECKING:
    from tests.simulation.network import Network, Node

Place = tuple[int, int]  # epoch and view


class Auditor:
    """Sees everything that honest nodes do, and raises `Violation` when it must not be."""

    def __init__(self, honest: frozenset[AccountId]) -> None:
        """`honest` are the accounts whose every key holder keeps to the rules."""
        self.honest = honest
        self.final_at_height: dict[int, Digest] = {}
        self.final_in_view: dict[Place, Digest] = {}
        self.nullified: set[Place] = set()
        self.finalized: set[Place] = set()
        self.notarized: dict[Place, Digest] = {}
        self.accused: dict[
            AccountId, set[int]
        ] = {}  # offenders, and the nodes that hold evidence and never crashed since
        self.blamed: dict[str, int] = {}
        self.jailed = 0  # ends of epochs at which somebody went to jail, as honest nodes saw them
        self.sets: dict[int, Digest] = {}  # of validators, by epoch
        self._heard: dict[int, dict[tuple[Place, AccountId], dict[VoteKind, Vote]]] = {}  # by node
        self._due: list[tuple[Digest, str]] = []  # evidence that a node must now have
        self._headers: dict[int, Header] = {}
        self._votes: dict[tuple[Place, AccountId], dict[VoteKind, Digest | None]] = {}

    def observe(self, node: Node, effect: Effect) -> None:
        """Look at one effect of a node that took place."""
        if not node.behaviour.is_honest:
            return
        match effect:
            case CommitBlocks():
                self._observe_commit(node, effect)
            case Persist(LoggedCertificate(certificate)):
                content = certificate.content
                self._observe_certificate(content.kind, (content.epoch, content.view), content.block)
            case Send(_, Vote() as vote):
                self._observe_vote(vote)
                self._observe_reason(node, vote)
            case Send(_, Proposal() as proposal):
                self._observe_vote(proposal.vote)
            case Accuse():
                if effect.offender in self.honest:
                    raise Violation(f"honest {effect.offender.hex()[:8]} accused: {effect.evidence}")
                self.accused.setdefault(effect.offender, set()).add(node.index)
            case ProposalRefused():
                _check_refusal(node, effect)
            case Blame():
                self.blamed[effect.peer] = self.blamed.get(effect.peer, 0) + 1
                if node.network.nodes[int(effect.peer)].behaviour.is_honest:
                    raise Violation(f"honest node {effect.peer} blamed: {effect.reason} {effect.detail}")

    def listen(self, node: Node, message: Message) -> None:
        """A vote reaches an honest node, alone or with a second proposal of its view."""
        if isinstance(message, Vote):
            self._listen(node, message)
        elif isinstance(message, Proposal) and node.state is not None:
            header, vote = message.block.header, message.vote
            first = node.state.proposals.get(header.view)
            is_whole = vote.content.block == compute_header_hash(header) and vote.content.view == header.view
            if first is not None and is_whole and vote.signer == header.proposer == first.vote.signer:
                self._listen(node, vote)

    def _listen(self, node: Node, vote: Vote) -> None:
        """With what the node heard before, this may be an offence that it must notice."""
        if not node.behaviour.is_honest or not _is_counted(node, vote):
            return
        place = (int(vote.content.epoch), int(vote.content.view))
        said = self._heard.setdefault(node.index, {}).setdefault((place, vote.signer), {})
        for other in said.values():
            offence = _name_offence(other, vote)
            if offence:
                name = digest("evidence", vote.signer, *(number.to_bytes(8, "big") for number in (*place, offence)))
                self._due.append((name, f"offence {offence} of {vote.signer.hex()[:8]} in view {place}"))
        said.setdefault(vote.content.kind, vote)

    def check_accusations(self, node: Node, message: Message) -> None:
        """Raise `Violation` where the node that just heard of an offence does not accuse."""
        state = node.state
        is_proposal = state is not None and isinstance(message, Proposal)
        if is_proposal and state.proposals.get(message.block.header.view) is message:
            self._listen(node, message.vote)
        for name, what in self._due:
            if state is not None and name not in state.accused:
                raise Violation(f"node {node.index} does not notice {what}")
        self._due.clear()

    def judging(self, node: Node, message: Message) -> Judging:
        """While a node takes a message in: one of another epoch neither ends the node nor is believed."""
        return Judging(node, message)

    def forget(self, node: Node) -> None:
        """A node crashed, and evidence is not written down: somebody else must still have it."""
        self._heard.pop(node.index, None)
        for holders in self.accused.values():
            holders.discard(node.index)

    def _observe_commit(self, node: Node, effect: CommitBlocks) -> None:
        for final in effect.finalized:
            header = final.block.header
            height, place = int(header.height), (int(header.epoch), int(header.view))
            is_only = self.final_at_height.setdefault(height, final.hash) == final.hash
            if not is_only or self.final_in_view.setdefault(place, final.hash) != final.hash:
                raise Violation(f"two final blocks at height {height} or view {place}")
            if height not in self._headers:
                self._observe_new(node, final)
        self._observe_fillers(effect)
        last = effect.finalized[-1].block.header
        is_end = last.height % node.network.genesis.parameters.epoch_blocks == 0
        if is_end and node.network.application is CONTRACTS:  # others keep no stake
            self._observe_set(node, last)

    def _observe_set(self, node: Node, last: Header) -> None:
        """At an epoch's end: less than a third of its power goes to jail, and the next set is one that can be borne."""
        ledger, parameters = Ledger(node.store), node.network.genesis.parameters
        jailed = total = 0
        for member in load_validators_at(ledger, last.epoch):
            total += member.power
            if load_validator(ledger, member.account).jailed_until == last.height + parameters.jail_blocks:
                jailed += member.power
        if 3 * jailed >= total:
            raise Violation(f"{jailed} of {total} in jail at the end of epoch {last.epoch}")
        self.jailed += jailed > 0
        members = load_validators(ledger).validators
        crooked = sum(member.power for member in members if member.account not in self.honest)
        if 3 * crooked >= sum(member.power for member in members):
            raise Unbearable(f"the set after epoch {last.epoch}")

    def _observe_fillers(self, effect: CommitBlocks) -> None:
        """Blocks that only make an epoch's last one final change nothing, and say so in their headers."""
        last = effect.finalized[-1].block.header
        for height, raw in effect.commit.certificates:
            for header in decode_finality(raw).headers:
                is_same = (header.state_root, header.next_validators_hash) == (
                    last.state_root,
                    last.next_validators_hash,
                )
                is_empty = header.transactions_root == header.evidence_root == header.receipts_root == EMPTY_LIST
                if header.height != height + 1 or not is_same or not is_empty:
                    raise Violation(f"a filler above height {height} changes something")

    def _observe_new(self, node: Node, final: FinalizedBlock) -> None:
        """What a reader of the chain can check of a block, done here a second time and in another way."""
        header = final.block.header
        below = self._headers.get(header.height - 1)
        ahead_ms = header.time_ms - node.network.now_ms
        drift_ms = node.network.genesis.parameters.clock_drift_ms_max
        problem = ""
        if compute_header_hash(header) != final.hash:
            problem = "has another hash"
        elif header.receipts_root != compute_receipts_root(final.receipts):
            problem = "names other receipts"
        elif header.transactions_root != compute_root([encode(entry) for entry in final.block.transactions]):
            problem = "names other transactions"
        elif ahead_ms > drift_ms + self.fastest_clock_ms(node.network):
            problem = f"is {ahead_ms} ms ahead of the time"
        elif below is not None:
            problem = _compare(node, header, below)
        if problem:
            raise Violation(f"the final block at height {header.height} {problem}")
        self._headers[int(header.height)] = header
        self.sets[int(header.epoch)] = header.validators_hash

    def fastest_clock_ms(self, network: Network) -> int:
        """How far the fastest honest clock is ahead."""
        return max(node.clock_skew_ms for node in network.nodes if node.behaviour.is_honest)

    def _observe_certificate(self, kind: VoteKind, place: Place, block: Digest | None) -> None:
        if kind is VoteKind.NULLIFY:
            self.nullified.add(place)
        elif block is not None and self.notarized.setdefault(place, block) != block:
            raise Violation(f"two blocks certified in view {place}")
        if kind is VoteKind.FINALIZE:
            self.finalized.add(place)
        if place in self.nullified and place in self.finalized:
            raise Violation(f"view {place} is both finalized and nullified")

    def _observe_vote(self, vote: Vote) -> None:
        """At most one vote of a kind in a view, no NULLIFY beside FINALIZE, no FINALIZE beside another's NOTARIZE."""
        place, kind, block = (int(vote.content.epoch), int(vote.content.view)), vote.content.kind, vote.content.block
        said = self._votes.setdefault((place, vote.signer), {})
        is_double = said.setdefault(kind, block) != block
        is_both = VoteKind.NULLIFY in said and VoteKind.FINALIZE in said
        pair = {said[one] for one in (VoteKind.NOTARIZE, VoteKind.FINALIZE) if one in said}
        if vote.signer in self.honest and (is_double or is_both or len(pair) > 1):
            raise Violation(f"honest {vote.signer.hex()[:8]} contradicts itself in view {place}: {kind.name}")

    def _observe_reason(self, node: Node, vote: Vote) -> None:
        """Whoever signs NOTARIZE has in hand what justifies the block, and its header commits to exactly that."""
        state = node.state
        if state is None or vote.content.kind is not VoteKind.NOTARIZE or vote.content.block is None:
            return
        proposal = state.proposals.get(vote.content.view)
        if proposal is None or compute_header_hash(proposal.block.header) != vote.content.block:
            return
        held = (*proposal.justification, *state.parts.get(vote.content.block, ()))
        problem = _find_gap(proposal.block.header, held) or _find_weakness(node, held)
        if problem:
            raise Violation(f"node {node.index} notarized in view {vote.content.view} although {problem}")


def _is_counted(node: Node, vote: Vote) -> bool:
    """Whether the node looks at the vote at all: of its epoch, near its view, above what is final, and genuine."""
    state, content = node.state, vote.content
    if state is None or content.epoch != state.members.epoch or content.view <= state.final_view:
        return False
    is_member = any(member.account == vote.signer for member in state.members.validators)
    if abs(content.view - state.view) > VIEW_WINDOW or not is_member:
        return False
    try:
        node.config.cryptography.verify_vote(vote, node.config.chain_id)
    except Rejected:
        return False
    return True


def _name_offence(one: Vote, other: Vote) -> int:
    """The number of the offence that two votes of one signer in one view are; 0: none."""
    kinds = sorted((one.content.kind, other.content.kind))
    if kinds == [VoteKind.NULLIFY, VoteKind.FINALIZE]:
        return 3
    if kinds[0] != kinds[1] or one.content.block == other.content.block:
        return 0
    return {VoteKind.NOTARIZE: 1, VoteKind.NULLIFY: 0, VoteKind.FINALIZE: 2}[kinds[0]]


def _compare(node: Node, header: Header, below: Header) -> str:
    """What is wrong with a final header on top of the one below; empty: nothing."""
    if header.parent_hash != compute_header_hash(below):
        return "does not extend the one below"
    if header.validators_hash != below.next_validators_hash:
        return "is of another validator set than the one below announced"
    if header.time_ms <= below.time_ms:
        return "is not later than the one below"
    alpha = compute_vrf_input(header.epoch, header.view, below.beacon)
    output = node.config.cryptography.verify_proof(header.proposer, alpha, header.vrf)
    return "" if header.beacon == compute_beacon(below.beacon, output) else "has another beacon"


def _find_gap(header: Header, certificates: tuple[Certificate, ...]) -> str:
    """Why the certificates do not justify the block's place; empty: they do. Powers are the engine's business."""
    entries = [encode(certificate) for certificate in certificates]
    if compute_root(entries if header.parent_view else [b"", *entries]) != header.justification_hash:
        return "the header commits to other certificates"
    needed = list(range(header.parent_view, header.view)) if header.parent_view else list(range(1, header.view))
    if [int(certificate.content.view) for certificate in certificates] != needed:
        return "views are missing"
    for certificate in certificates:
        content = certificate.content
        is_parent = content.view == header.parent_view
        if content.epoch != header.epoch or (content.kind is VoteKind.NULLIFY) == is_parent:
            return f"the certificate of view {content.view} is of another kind or epoch"
        if is_parent and content.block != header.parent_hash:
            return "the parent's certificate names another block"
        if len(set(certificate.signers)) < len(certificate.signers):
            return "somebody signed twice"
    return ""


def _find_weakness(node: Node, certificates: tuple[Certificate, ...]) -> str:
    """Which of the certificates lacks power or a good signature; empty: none."""
    assert node.state is not None
    powers = {member.account: int(member.power) for member in node.state.members.validators}
    for certificate in certificates:
        power = sum(powers.get(signer, 0) for signer in certificate.signers)
        if 3 * power <= 2 * sum(powers.values()):
            return f"the certificate of view {certificate.content.view} has power {power}"
        try:
            for signer, signature in zip(certificate.signers, certificate.signatures, strict=True):
                node.config.cryptography.verify_vote(Vote(certificate.content, signer, signature), node.config.chain_id)
        except Rejected:
            return f"a signature in the certificate of view {certificate.content.view} does not hold"
    return ""


def _check_refusal(node: Node, effect: ProposalRefused) -> None:
    """A proposal that was refused for its justification is an offence of whoever signed it, and is noticed as one."""
    state = node.state
    proposal = None if state is None else state.proposals.get(effect.view)
    if (
        state is None
        or proposal is None
        or any(words in effect.detail for words in ("invalid before", "below the final"))
    ):
        return
    header, content = proposal.block.header, proposal.vote.content
    held = (*proposal.justification, *(() if content.block is None else state.parts.get(content.block, ())))
    entries = [encode(certificate) for certificate in held]
    entries = entries if header.parent_view else [b"", *entries]
    if len(entries) != header.view - header.parent_view or compute_root(entries) != header.justification_hash:
        return
    numbers = (int(content.epoch), int(content.view), 4)
    name = digest("evidence", proposal.vote.signer, *(number.to_bytes(8, "big") for number in numbers))
    if (_find_gap(header, held) or _find_weakness(node, held)) and name not in state.accused:
        raise Violation(f"node {node.index} does not notice a bad justification in view {numbers[:2]}")


def find_unpunished(network: Network) -> list[AccountId]:
    """Offenders whom an honest node can prove and whose stake some honest ledger has not burned yet."""
    known = [offender for offender, holders in sorted(network.auditor.accused.items()) if holders]
    ledgers = [Ledger(node.store) for node in network.honest]
    return [
        offender for offender in known if not all(load_validator(ledger, offender).is_tombstoned for ledger in ledgers)
    ]


def verify_coins(network: Network) -> None:
    """Raise `Violation` where coins appeared or vanished, or an honest account lost stake or its right to vote."""
    for node in network.honest:
        ledger = Ledger(node.store)
        supply = load_supply(ledger)
        if supply.minted - supply.burned != compute_held(dict(node.store.scan(b""))):
            raise Violation(f"node {node.index}: coins held are not those minted less those burned")
        for account in sorted(network.auditor.honest):
            if load_account(ledger, account).slashed or load_validator(ledger, account).is_tombstoned:
                raise Violation(f"node {node.index}: honest {account.hex()[:8]} was slashed")


def verify_stores(network: Network) -> None:
    """Raise `Violation` unless each honest store's root is that of its whole table, and equal tips have equal roots."""
    roots: dict[int, Digest] = {}
    for node in network.honest:
        tip, root = node.store.tip(), node.store.state_root()
        table: dict[bytes, bytes | None] = dict(node.store.scan(b""))
        if compute_update(lambda _: None, EMPTY_ROOT, table)[0] != root:
            raise Violation(f"node {node.index}: the state root is not that of the ledger")
        if tip is not None and roots.setdefault(int(tip[0]), root) != root:
            raise Violation(f"two state roots at height {tip[0]}")
