"""A peer stopped by SIGSTOP: its kernel still takes bytes, and nobody may wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from milon.base.errors import Reason, Rejected
from milon.p2p.libp2p_link import SEND_MAX_S
from milon.p2p.seam import yamux
from milon.p2p.transport import Channel
from tests.p2p.networks import CHAIN, DEADLINE_S, Network, network_of, seed_of, wait_until

PEER = """
import sys
import trio
from milon.p2p.libp2p_transport import LibP2PTransport
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import Channel

async def echo(peer, payload):
    return payload

async def main():
    node = LibP2PTransport(TransportSettings(bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])))
    node.serve(Channel.SYNC, echo)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        print(node.addresses[0], flush=True)
        async for message in node.received():
            pass

assert "torch" not in sys.modules
trio.run(main)
"""


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with network_of("libp2p") as found:
        yield found


async def test_a_frozen_peer_is_given_up_and_taken_back(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamux, "PING_AFTER_S", 0.3)
    monkeypatch.setattr(yamux, "DEAD_AFTER_S", 1.2)
    node = await network.add("node")
    command = [sys.executable, "-c", PEER, seed_of("frozen").hex(), CHAIN.hex()]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            address = (await trio.to_thread.run_sync(process.stdout.readline)).strip()
            peer = await node.connect(address, timeout_s=DEADLINE_S)
            assert await node.request(peer, Channel.SYNC, b"x", timeout_s=DEADLINE_S) == b"x"

            os.kill(process.pid, signal.SIGSTOP)
            start = trio.current_time()
            while node.send(peer, Channel.CONSENSUS, bytes(1 << 20)):  # fill its sockets and our queue
                await trio.sleep(0.001)
            with pytest.raises(Rejected) as refused:
                await node.request(peer, Channel.SYNC, b"x", timeout_s=DEADLINE_S)
            assert refused.value.reason is Reason.UNAVAILABLE
            await wait_until(lambda: node.peers() == ())
            assert trio.current_time() - start < SEND_MAX_S  # by its silence, not only by its full sockets
            with trio.fail_after(1):
                node.disconnect(peer)

            os.kill(process.pid, signal.SIGCONT)
            await node.connect(address, timeout_s=DEADLINE_S)
            assert await node.request(peer, Channel.SYNC, b"back", timeout_s=DEADLINE_S) == b"back"
        finally:
            os.kill(process.pid, signal.SIGKILL)
