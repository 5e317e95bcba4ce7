"""The runner's queue: a flood fills its sender's share and leaves room for the others."""

from __future__ import annotations

from pathlib import Path

from milon.base.units import Height, TimeMs
from milon.chain.params import Parameters
from milon.consensus.application import make_config
from milon.consensus.events import MessageReceived, TransactionsReceived
from milon.consensus.messages import Status, StatusRequest
from milon.consensus.restore import restore
from milon.node.application import CONTRACTS, prepare_store
from milon.node.folder import NodeFolder
from milon.node.runner import PEER_EVENTS_MAX, TRANSACTIONS_MAX, Runner
from milon.node.vote_log import VoteLog
from milon.state.memory_store import MemoryStore
from tests.p2p.networks import network_of, wait_until
from tests.system.in_process import make_test_genesis

NOW = TimeMs(1)


async def test_a_flood_fills_only_its_senders_share(tmp_path: Path) -> None:
    genesis, keys, _ = make_test_genesis(4, Parameters())
    store = MemoryStore()
    prepare_store(store, genesis)
    folder = NodeFolder(tmp_path / "node")
    folder.make()
    config = make_config(genesis, store, CONTRACTS, keys[0])
    async with network_of("memory") as network:
        one, quiet = await network.pair()
        vote_log = VoteLog(folder.votes)
        state, effects = restore(config, vote_log.records, vote_log.signed, NOW)
        runner = Runner(config, state, effects, store, vote_log, one, lambda finalized: None)
        for _ in range(PEER_EVENTS_MAX + 5):
            runner.feed(MessageReceived(NOW, "loud", Status(Height(0), None)))
        for _ in range(TRANSACTIONS_MAX + 7):
            runner.feed(TransactionsReceived(NOW, ()))
        assert runner.dropped == 5 + 7
        runner.feed(MessageReceived(NOW, quiet.peer_id, StatusRequest()))
        assert runner.dropped == 5 + 7
        network.nursery.start_soon(runner.run)

        def has_room() -> bool:
            dropped = runner.dropped
            runner.feed(MessageReceived(NOW, "loud", Status(Height(0), None)))
            return runner.dropped == dropped

        await wait_until(has_room)
        vote_log.close()
