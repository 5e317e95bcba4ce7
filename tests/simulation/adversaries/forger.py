"""A leader whose blocks are wrong in one way each: forged justifications, and headers that lie."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from milon.base.ids import Digest, Signature
from milon.base.units import Epoch, Height, TimeMs, View
from milon.chain.block import Header, compute_header_hash
from milon.chain.certificate import Certificate, VoteContent, VoteKind
from milon.consensus.effects import Effect, Send
from milon.consensus.justification import compute_justification_hash
from milon.consensus.messages import CertificateBatch, Proposal
from tests.simulation.adversaries.rebuilding import rebuild
from tests.simulation.network import Behaviour, Node

Forge = Callable[[Certificate], Certificate]

FAR_MS = 60_000  # ahead of every clock by far more than the drift


def _drop_signers(certificate: Certificate) -> Certificate:
    """Half of the signers: too little power."""
    half = max(1, len(certificate.signers) // 2)
    return replace(certificate, signers=certificate.signers[:half], signatures=certificate.signatures[:half])


def _repeat_signer(certificate: Certificate) -> Certificate:
    """One signer as often as there were signers."""
    count = len(certificate.signers)
    return replace(certificate, signers=certificate.signers[:1] * count, signatures=certificate.signatures[:1] * count)


def _break_signature(certificate: Certificate) -> Certificate:
    """The last signature is not one."""
    return replace(certificate, signatures=(*certificate.signatures[:-1], Signature(bytes(64))))


def _rename(certificate: Certificate) -> Certificate:
    """The signatures of one content under another: a nullification of the view after."""
    content = replace(certificate.content, kind=VoteKind.NULLIFY, block=None, view=View(certificate.content.view + 1))
    return replace(certificate, content=content)


def _move_epoch(certificate: Certificate) -> Certificate:
    """The same certificate said to be of the next epoch."""
    return replace(certificate, content=replace(certificate.content, epoch=Epoch(certificate.content.epoch + 1)))


FORGERIES: tuple[Forge, ...] = (_drop_signers, _repeat_signer, _break_signature, _rename, _move_epoch)

NOWHERE = Digest(bytes(31) + b"\x01")

LIES: tuple[Callable[[Header], Header], ...] = (
    lambda header: replace(header, state_root=NOWHERE),
    lambda header: replace(header, receipts_root=NOWHERE),
    lambda header: replace(header, height=Height(header.height + 1)),
    lambda header: replace(header, next_validators_hash=NOWHERE),
    lambda header: replace(header, validators_hash=NOWHERE),
    lambda header: replace(header, evidence_root=NOWHERE),
    lambda header: replace(header, epoch=Epoch(header.epoch + 1)),
    lambda header: replace(header, view=View(header.view + 1)),
    lambda header: replace(header, parent_view=View(max(0, header.parent_view - 1))),
)

PLANS: tuple[Callable[[Header], dict[str, object]], ...] = (  # lies with an effect that fits them
    lambda header: {"time_ms": TimeMs(header.time_ms + FAR_MS)},
    lambda header: {"time_ms": TimeMs(1)},
    lambda header: {"beacon": NOWHERE},
    lambda header: {"justification_hash": NOWHERE},
)


class Forger(Behaviour):
    """Each time it leads, one forgery or one lie; and forged certificates to single peers now and then."""

    is_honest = False

    def __init__(self, seed: int) -> None:
        """Its own source of chance."""
        self._random = random.Random(seed)

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants, with every proposal made wrong."""
        acted: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Proposal):
                acted.extend(self._hand_out(node, effect.message))
                continue
            acted.append(effect)
            if isinstance(effect, Send) and isinstance(effect.message, Certificate) and not self._random.randrange(3):
                acted.append(self._whisper(node, effect.message))
        return acted

    def _hand_out(self, node: Node, proposal: Proposal) -> list[Effect]:
        """The spoilt proposal; now and then some get it with only the beginning of its justification."""
        spoilt = self._spoil(node, proposal)
        if len(spoilt.justification) == 0 or self._random.randrange(3):
            return [Send(None, spoilt)]
        short = replace(spoilt, justification=spoilt.justification[: self._random.randrange(len(spoilt.justification))])
        peers = [str(peer.index) for peer in node.network.nodes if peer is not node]
        return [Send(peer, self._random.choice((spoilt, short))) for peer in peers]

    def _whisper(self, node: Node, certificate: Certificate) -> Effect:
        forged = self._random.choice(FORGERIES)(certificate)
        peer = self._random.choice([other for other in node.network.nodes if other is not node])
        return Send(str(peer.index), self._random.choice((forged, CertificateBatch((forged,)))))

    def _spoil(self, node: Node, proposal: Proposal) -> Proposal:
        """One of three ways to be wrong, so that each has its turn within few views."""
        way = self._random.randrange(3)
        if way == 0:
            return self._sign(proposal, self._random.choice(LIES)(proposal.block.header), node)
        if way == 1 or not proposal.justification:
            plan = self._random.choice(PLANS)(proposal.block.header)
            block = rebuild(node, proposal.block, **plan) or proposal.block
            return self._sign(proposal, block.header, node)
        certificates = self._forge_one(node, proposal.justification)
        commitment = compute_justification_hash(proposal.block.header.parent_view, certificates)
        header = replace(proposal.block.header, justification_hash=commitment)
        return self._sign(replace(proposal, justification=certificates), header, node)

    def _forge_one(self, node: Node, certificates: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
        """The justification with one entry forged, or with a good certificate of something else there."""
        assert node.state is not None
        place = self._random.randrange(len(certificates))
        others = [*node.state.notarizations.values(), *node.state.nullifications.values()]
        others = [other for other in others if other not in certificates]
        if others and self._random.randrange(2):
            forged = self._random.choice(others)
        else:
            forged = self._random.choice(FORGERIES)(certificates[place])
        return (*certificates[:place], forged, *certificates[place + 1 :])

    def _sign(self, proposal: Proposal, header: Header, node: Node) -> Proposal:
        content = VoteContent(VoteKind.NOTARIZE, header.epoch, header.view, compute_header_hash(header))
        assert node.key is not None
        vote = node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)
        return replace(proposal, block=replace(proposal.block, header=header), vote=vote)
