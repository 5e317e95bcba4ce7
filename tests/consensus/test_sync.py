"""Catching up: from an empty store over many blocks, through runs of blocks without their own finalization."""

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import Height, TimeMs
from milon.chain.certificate import VoteKind
from milon.consensus import sync
from milon.consensus.effects import Blame, Send
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived
from milon.consensus.messages import (
    BlockRequest,
    BlockResponse,
    RangeRequest,
    RangeResponse,
    decode_message,
    encode_message,
)
from milon.consensus.state import Request
from milon.consensus.sync import verify_range
from milon.consensus.turn import Turn
from tests.simulation.network import Behaviour, Faults, Network, Node

BATCH = 8  # blocks an answer: small, so that a short chain takes several


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "RANGE_BLOCKS_MAX", BATCH)


def _network_with_latecomer(length_ms: int) -> Network:
    network = Network(
        5, (10, 10, 10, 10), [Behaviour() for _ in range(5)], Faults(), keys=(0, 1, 2, 3, None), late=frozenset({4})
    )
    network.run_until(length_ms)
    return network


def _ask(node: Node, message: object) -> list[object]:
    """What a node answers; its state stays as it was."""
    assert node.state is not None
    event = MessageReceived(node.now(), "9", message)  # type: ignore[arg-type]
    _, effects = step(node.config, node.state, event)
    return [effect.message for effect in effects if isinstance(effect, Send) and effect.peer == "9"]


def test_an_observer_with_an_empty_store_catches_up_in_batches() -> None:
    network = _network_with_latecomer(12_000)
    height = min(network.heights())
    assert height > 5 * BATCH
    network.kinds_sent.clear()
    network.nodes[4].start()
    network.run_until(13_000)
    latecomer = network.nodes[4]
    assert latecomer.state is not None
    assert latecomer.state.tip.height >= height
    assert latecomer.state.own == {}
    assert 5 <= network.kinds_sent[RangeRequest] <= 8
    assert network.kinds_sent[BlockResponse] <= 10
    assert latecomer.store.block_by_height(Height(1)) == network.nodes[0].store.block_by_height(Height(1))
    assert len(latecomer.state.executed) + len(latecomer.state.bodies) <= 8, "nothing of the past stays in memory"


def test_a_validator_that_slept_takes_part_again() -> None:
    network = Network(6, (10, 10, 10, 10), [Behaviour() for _ in range(4)], Faults(), late=frozenset({3}))
    network.run_until(8_000)
    network.nodes[3].start()
    network.run_until(9_000)
    before = min(network.heights())
    network.nodes[0].state = None
    network.run_until(14_000)
    assert min(network.heights()) > before + 3, "with one other down, its vote is needed"


def test_an_answer_holds_final_blocks_and_their_finalization() -> None:
    network = _network_with_latecomer(3_000)
    (answer,) = _ask(network.nodes[0], RangeRequest(Height(2)))
    assert isinstance(answer, RangeResponse)
    assert [block.header.height for block in answer.blocks][:3] == [2, 3, 4]
    assert answer.finalization.content.kind is VoteKind.FINALIZE
    assert decode_message(encode_message(answer)) == answer
    assert _ask(network.nodes[0], RangeRequest(Height(10_000))) == []


def test_blocks_without_their_own_finalization_come_with_the_headers_up_to_one() -> None:
    network = _network_with_latecomer(10_000)
    network.nodes[0].state = network.nodes[1].state = None
    network.nodes[2].store._tables.certificates.clear()
    donor = network.nodes[2]
    (answer,) = _ask(donor, RangeRequest(Height(1)))
    assert isinstance(answer, RangeResponse)
    assert len(answer.blocks) == BATCH and len(answer.headers) > 10
    latecomer = network.nodes[4]
    network.nodes[3].store._tables.certificates.clear()
    latecomer.start()
    network.run_until(13_000)
    assert donor.state is not None and latecomer.state is not None
    assert latecomer.state.tip.height >= donor.state.tip.height > 40


def test_a_range_that_proves_nothing_is_refused() -> None:
    network = _network_with_latecomer(4_000)
    donor = network.nodes[0]
    (answer,) = _ask(donor, RangeRequest(Height(1)))
    assert isinstance(answer, RangeResponse) and donor.state is not None
    turn = Turn(donor.config, donor.state, TimeMs(0))
    verify_range(turn, answer)
    broken = [
        RangeResponse((), (), answer.finalization),
        RangeResponse(answer.blocks[:-1], (), answer.finalization),
        RangeResponse(answer.blocks[:3] + answer.blocks[4:], (), answer.finalization),
        RangeResponse(answer.blocks, (answer.blocks[0].header,), answer.finalization),
        RangeResponse(answer.blocks * 10, (), answer.finalization),
    ]
    for response in broken:
        with pytest.raises(Rejected) as refused:
            verify_range(turn, response)
        assert refused.value.reason in (Reason.BAD_PROOF, Reason.OUT_OF_RANGE)


def test_what_was_not_asked_for_is_dropped() -> None:
    network = _network_with_latecomer(3_000)
    donor, latecomer = network.nodes[0], network.nodes[4]
    latecomer.start()
    assert latecomer.state is not None
    (answer,) = _ask(donor, RangeRequest(Height(1)))
    assert isinstance(answer, RangeResponse)
    event = MessageReceived(latecomer.now(), "0", answer)
    state, effects = step(latecomer.config, latecomer.state, event)
    assert state.tip.height == 0 and all(not isinstance(effect, Send) for effect in effects)
    event = MessageReceived(latecomer.now(), "0", BlockResponse(answer.blocks[0]))
    state, _ = step(latecomer.config, latecomer.state, event)
    assert state.bodies == {}


def test_a_block_is_given_out_by_hash_wherever_it_lies() -> None:
    network = _network_with_latecomer(3_000)
    donor = network.nodes[0]
    (answer,) = _ask(donor, RangeRequest(Height(1)))
    assert isinstance(answer, RangeResponse) and donor.state is not None
    old = answer.blocks[1].header.parent_hash
    for wanted in (old, donor.state.tip.hash):
        (found,) = _ask(donor, BlockRequest(wanted))
        assert isinstance(found, BlockResponse)
    assert _ask(donor, BlockRequest(donor.config.genesis_hash)) == []


def test_a_final_chain_with_a_gap_below_it_is_refused_and_ends_nobody() -> None:
    network = _network_with_latecomer(4_000)
    donor, latecomer = network.nodes[0], network.nodes[4]
    latecomer.start()
    (answer,) = _ask(donor, RangeRequest(Height(3)))
    assert latecomer.state is not None and isinstance(answer, RangeResponse)
    pending = replace(latecomer.state, requests={sync.RANGE: Request(1, latecomer.now())})
    state, effects = step(latecomer.config, pending, MessageReceived(latecomer.now(), "0", answer))
    assert [effect.peer for effect in effects if isinstance(effect, Blame)] == ["0"] and state.tip.height == 0
