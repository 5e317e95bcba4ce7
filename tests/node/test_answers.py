"""Answers to other nodes: rationed by peer."""

from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.chain.genesis import Genesis
from milon.chain.params import Parameters
from milon.node.answers import ANSWERS_MAX, Answers
from milon.node.light_answers import LightAnswers
from milon.node.questions import AskGenesis
from milon.node.runner import read_clock_ms
from milon.node.shelf import Shelf
from milon.p2p.transport import PeerId
from milon.state.memory_store import MemoryStore
from tests.system.in_process import make_test_genesis


async def test_who_asks_too_much_is_refused_and_others_are_not(tmp_path: Path) -> None:
    genesis, _, _ = make_test_genesis(4, Parameters())
    store = MemoryStore()
    answers = Answers(genesis, store, lambda: (), LightAnswers(genesis, store, Shelf(tmp_path), read_clock_ms))
    for _ in range(int(ANSWERS_MAX)):
        assert decode(Genesis, await answers.answer(PeerId("loud"), encode(AskGenesis()))) == genesis
    with pytest.raises(Rejected) as refused:
        for _ in range(50):
            await answers.answer(PeerId("loud"), encode(AskGenesis()))
    assert refused.value.reason is Reason.FULL
    assert decode(Genesis, await answers.answer(PeerId("quiet"), encode(AskGenesis()))) == genesis
