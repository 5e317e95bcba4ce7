"""A leader whose blocks are wrong in one way each: forged justifications, and headers that lie."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from milon.base.ids import Digest, Signature
from milon.base.units import Epoch, Height, TimeMs, View
from milon.chain.block import Block, Header, compute_header_hash
from milon.chain.certificate import Certificate, VoteContent, VoteKind
from milon.consensus.effects import Effect, Send
from milon.consensus.justification import compute_justification_hash
from milon.consensus.messages import CertificateBatch, Proposal
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

LIES: tuple[Callable[[Header], Header], ...] = (
    lambda header: replace(header, state_root=Digest(bytes(31) + b"\x01")),
    lambda header: replace(header, receipts_root=Digest(bytes(31) + b"\x01")),
    lambda header: replace(header, time_ms=TimeMs(header.time_ms + FAR_MS)),
    lambda header: replace(header, time_ms=TimeMs(1)),
    lambda header: replace(header, height=Height(header.height + 1)),
    lambda header: replace(header, beacon=Digest(bytes(31) + b"\x01")),
    lambda header: replace(header, next_validators_hash=Digest(bytes(31) + b"\x01")),
    lambda header: replace(header, epoch=Epoch(header.epoch + 1)),
    lambda header: replace(header, parent_view=View(max(0, header.parent_view - 1))),
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
                acted.append(Send(effect.peer, self._spoil(node, effect.message)))
                continue
            acted.append(effect)
            if isinstance(effect, Send) and isinstance(effect.message, Certificate) and not self._random.randrange(3):
                acted.append(self._whisper(node, effect.message))
        return acted

    def _whisper(self, node: Node, certificate: Certificate) -> Effect:
        forged = self._random.choice(FORGERIES)(certificate)
        peer = self._random.choice([other for other in node.network.nodes if other is not node])
        return Send(str(peer.index), self._random.choice((forged, CertificateBatch((forged,)))))

    def _spoil(self, node: Node, proposal: Proposal) -> Proposal:
        if not proposal.justification or self._random.randrange(2):
            return self._sign(node, self._random.choice(LIES)(proposal.block.header), proposal)
        place = self._random.randrange(len(proposal.justification))
        certificates = list(proposal.justification)
        certificates[place] = self._random.choice(FORGERIES)(certificates[place])
        header = proposal.block.header
        commitment = compute_justification_hash(header.parent_view, certificates)
        header = replace(header, justification_hash=commitment)
        return self._sign(node, header, replace(proposal, justification=tuple(certificates)))

    def _sign(self, node: Node, header: Header, proposal: Proposal) -> Proposal:
        assert node.key is not None
        content = VoteContent(VoteKind.NOTARIZE, header.epoch, header.view, compute_header_hash(header))
        vote = node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)
        block: Block = replace(proposal.block, header=header)
        return replace(proposal, block=block, vote=vote)
