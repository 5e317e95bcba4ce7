"""Parents and proofs: the newest certified parent, nothing skipped without a nullification, lots for long outages."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Epoch, View
from milon.chain.certificate import Certificate, VoteContent, VoteKind
from milon.consensus import justification
from milon.consensus.effects import Effect, Send
from milon.consensus.justification import (
    Lineage,
    compute_justification_hash,
    count_certificates,
    find_lineage,
    split_certificates,
    verify_justification,
)
from milon.consensus.messages import JustificationPart, Proposal
from tests.consensus.captured import Moment, catch
from tests.simulation.network import START_MS, Behaviour, Faults, Network, Node

BLOCK = Digest(b"p" * 32)


def _certificate(kind: VoteKind, view: int, block: Digest | None = None) -> Certificate:
    return Certificate(VoteContent(kind, Epoch(0), View(view), block), (), ())


def _nullification(view: int) -> Certificate:
    return _certificate(VoteKind.NULLIFY, view)


@pytest.fixture(scope="module")
def moment() -> Moment:
    return catch()


def _find(
    moment: Moment, view: int, notarized: dict[int, Digest], nullified: Sequence[int], final: Certificate | None = None
) -> Lineage | View:
    state = replace(
        moment.state,
        finalization=final,
        notarizations={View(at): _certificate(VoteKind.NOTARIZE, at, block) for at, block in notarized.items()},
        nullifications={View(at): _nullification(at) for at in nullified},
    )
    return find_lineage(state, View(view))


def test_the_newest_notarized_view_is_the_parent(moment: Moment) -> None:
    lineage = _find(moment, 9, {5: Digest(b"x" * 32), 6: BLOCK}, [5, 7, 8])
    assert isinstance(lineage, Lineage) and (lineage.parent_hash, lineage.parent_view) == (BLOCK, 6)
    assert [entry.content.view for entry in lineage.certificates] == [6, 7, 8]


def test_a_missing_certificate_is_named(moment: Moment) -> None:
    assert _find(moment, 9, {6: BLOCK}, [8]) == 7


def test_before_the_first_block_of_an_epoch_the_parent_is_what_the_epoch_began_on(moment: Moment) -> None:
    start = replace(moment.state, tip=replace(moment.state.tip, view=View(0)))
    lineage = _find(replace(moment, state=start), 3, {}, [1, 2])
    assert isinstance(lineage, Lineage) and lineage.parent_hash == moment.state.tip.hash
    assert lineage.parent_view == 0 and len(lineage.certificates) == 2
    assert _find(moment, 3, {}, [1, 2]) == moment.state.tip.view, "no view that is final was nullified"


def test_a_finalization_stands_in_for_the_notarization_of_the_same_block(moment: Moment) -> None:
    final = _certificate(VoteKind.FINALIZE, 6, BLOCK)
    lineage = _find(moment, 8, {}, [7], final)
    assert isinstance(lineage, Lineage) and lineage.certificates[0] is final


def test_every_wrong_entry_is_refused(moment: Moment) -> None:
    header = replace(moment.proposal.block.header, view=View(9), parent_view=View(6), parent_hash=BLOCK)
    good = (_certificate(VoteKind.NOTARIZE, 6, BLOCK), _nullification(7), _nullification(8))
    verify_justification(header, good)
    assert count_certificates(header) == 3
    broken: list[tuple[Certificate, ...]] = [
        (),
        good[:2],
        (*good, _nullification(9)),
        (good[0], good[2], good[1]),
        (good[0], good[1], good[1]),
        (good[0], good[1], _certificate(VoteKind.NOTARIZE, 8, BLOCK)),
        (_certificate(VoteKind.NOTARIZE, 6, Digest(b"q" * 32)), *good[1:]),
        (_certificate(VoteKind.NOTARIZE, 5, BLOCK), *good[1:]),
        (_nullification(6), *good[1:]),
        (good[0], replace(good[1], content=replace(good[1].content, epoch=Epoch(1))), good[2]),
    ]
    for certificates in broken:
        with pytest.raises(Rejected):
            verify_justification(header, certificates)
    genesis = replace(header, view=View(3), parent_view=View(0))
    verify_justification(genesis, (_nullification(1), _nullification(2)))
    assert count_certificates(genesis) == 2


def test_the_commitment_depends_on_each_byte_and_on_genesis() -> None:
    certificates = (_nullification(1), _nullification(2))
    found = {
        compute_justification_hash(View(0), certificates),
        compute_justification_hash(View(1), certificates),
        compute_justification_hash(View(0), certificates[:1]),
        compute_justification_hash(View(0), certificates[::-1]),
    }
    assert len(found) == 4


def test_lots_keep_the_order_and_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justification, "CERTIFICATES_MAX", 3)
    certificates = tuple(_nullification(view) for view in range(1, 9))
    lots = split_certificates(certificates)
    assert [len(lot) for lot in lots] == [3, 3, 2]
    assert tuple(entry for lot in lots for entry in lot) == certificates
    assert split_certificates(()) == [()]


class _MuteProposals(Behaviour):
    """Honest, on a network that loses every proposal for some time."""

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        is_lost = node.network.now_ms < START_MS + 6_000
        return [
            effect
            for effect in effects
            if not (is_lost and isinstance(effect, Send) and isinstance(effect.message, Proposal))
        ]


def test_a_long_outage_is_justified_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justification, "CERTIFICATES_MAX", 2)
    network = Network(1, (10, 10, 10, 10), [_MuteProposals() for _ in range(4)], Faults())
    network.run_until(6_000)
    assert network.heights() == [0, 0, 0, 0]
    assert all(node.state is not None and node.state.view > 6 for node in network.nodes)
    network.run_until(12_000)
    assert network.kinds_sent[JustificationPart] >= 2
    assert min(network.heights()) > 5
