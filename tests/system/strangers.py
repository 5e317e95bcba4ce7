"""A stranger on a live node's network: real libp2p, a key of its own, and whatever bytes a test wants to send."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.hashing import sha256
from milon.node.inbox import TRANSACTION_TOPIC
from milon.p2p.frames import KIND_ANSWER, KIND_HELLO, KIND_REFUSAL, Hello, encode_frame
from milon.p2p.libp2p_requests import PROTOCOLS
from milon.p2p.libp2p_transport import ONE_WAY, LibP2PTransport
from milon.p2p.seam.gossip import MESHSUB_ID
from milon.p2p.seam.host import GuardedHost, build_host, build_key_pair
from milon.p2p.seam.tcp import GuardedTCP
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel

DEADLINE_S = 30.0
OTHER_PROTOCOLS = (MESHSUB_ID, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0")
FAULTS = (BaseLibp2pError, IOException, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass(frozen=True, slots=True)
class Target:
    """A live node."""

    address: str  # multiaddress with its peer id
    chain: bytes  # the genesis hash

    @property
    def peer_id(self) -> ID:
        """From its address."""
        return ID.from_base58(self.address.rpartition("/")[2])


@asynccontextmanager
async def stranger(target: Target, name: str) -> AsyncIterator[GuardedHost]:
    """A host connected to the target that has said nothing yet."""
    async with trio.open_nursery() as nursery:
        host = build_host(build_key_pair(sha256(name.encode())), GuardedTCP(nursery), lambda peer, error: None)
        async with background_trio_service(host.get_network()):
            with trio.fail_after(DEADLINE_S):
                await host.get_network().dial_addr(Multiaddr(target.address), target.peer_id)
            yield host
        nursery.cancel_scope.cancel()


async def overhear(target: Target, name: str, count: int) -> list[bytes]:
    """What the node tells a well-behaved peer unasked: up to `count` consensus messages."""
    settings = TransportSettings(sha256(name.encode()), target.chain)
    transport = LibP2PTransport(settings)
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(transport.run))
        await transport.connect(target.address, timeout_s=DEADLINE_S)
        with trio.fail_after(DEADLINE_S):
            async for received in transport.received():
                heard.append(received.payload)
                if len(heard) >= count:
                    break
        nursery.cancel_scope.cancel()
    return heard


def mutate(chance: random.Random, raw: bytes) -> bytes:
    """The bytes with a few flipped, cut, doubled or followed by others."""
    found = bytearray(raw or b"\x00")
    kind = chance.randrange(4)
    if kind == 0:
        for _ in range(chance.randint(1, 4)):
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del found[chance.randrange(len(found)) :]
    elif kind == 2:
        place = chance.randrange(len(found))
        found[place:place] = found[place : place + 64]
    else:
        found += chance.randbytes(chance.randint(1, 64))
    return bytes(found)


def make_gossip(target: Target, payload: bytes) -> bytes:
    """An announcement of a transaction without a signature, behind its length as a varint."""
    topic = f"/milon/{target.chain.hex()[:16]}/{TRANSACTION_TOPIC}"
    message = rpc_pb2.Message(topicIDs=[topic], data=payload, seqno=b"1")
    raw = rpc_pb2.RPC(publish=[message]).SerializeToString()
    size, head = len(raw), b""
    while size > 0x7F:
        head, size = head + bytes((size & 0x7F | 0x80,)), size >> 7
    return head + bytes((size,)) + raw


def make_attacks(target: Target, heard: list[bytes], chance: random.Random) -> Iterator[tuple[str, bool, bytes]]:
    """(protocol, whether to say hello before, bytes): wrong frames of every kind on every protocol."""
    hello = encode_frame(KIND_HELLO, encode(Hello(target.chain)))
    for raw in heard:
        yield ONE_WAY, True, encode_frame(Channel.CONSENSUS, mutate(chance, raw))
    yield ONE_WAY, False, encode_frame(KIND_HELLO, encode(Hello(bytes(32))))  # another chain
    yield ONE_WAY, False, encode_frame(KIND_HELLO, mutate(chance, encode(Hello(target.chain))))
    yield ONE_WAY, False, hello + hello
    for kind in (*Channel, KIND_ANSWER, KIND_REFUSAL, 200):
        yield ONE_WAY, True, encode_frame(kind, chance.randbytes(chance.randint(0, 2_000)))
    for channel, protocol in PROTOCOLS.items():
        yield protocol, True, encode_frame(channel, chance.randbytes(200))
        yield protocol, True, encode_frame(channel, mutate(chance, chance.choice(heard)))
        yield protocol, True, encode_frame(200, b"x")
        yield protocol, True, (PAYLOAD_MAX_BYTES[channel] + 1).to_bytes(4, "big") + bytes((channel,))
        yield protocol, True, encode_frame(channel, bytes(1_000))[:-1]  # ends inside the frame
        yield protocol, False, encode_frame(channel, chance.randbytes(200))  # without a hello
    for name in OTHER_PROTOCOLS:
        for size in (1, 100, 10_000):
            yield name, True, chance.randbytes(size)
    yield MESHSUB_ID, True, make_gossip(target, bytes(PAYLOAD_MAX_BYTES[Channel.GOSSIP] + 1))  # too large
    yield MESHSUB_ID, True, make_gossip(target, chance.randbytes(500))  # signed by nobody
    yield MESHSUB_ID, True, b"\xff" * 10
    yield MESHSUB_ID, True, b"\xff\xff\xff\x7f"  # an announcement of 256 MiB


async def attack(target: Target, name: str, protocol: str, greets: bool, raw: bytes) -> bool:
    """Connect, say the bytes on the protocol, and leave; whether they were said before the node cut the talk short."""
    is_said = False
    try:
        with trio.fail_after(DEADLINE_S):
            async with stranger(target, name) as host:
                if greets:
                    stream = await host.new_stream(target.peer_id, [ONE_WAY])
                    await stream.write(encode_frame(KIND_HELLO, encode(Hello(target.chain))))
                    if protocol != ONE_WAY:
                        stream = await host.new_stream(target.peer_id, [protocol])
                else:
                    stream = await host.new_stream(target.peer_id, [protocol])
                await stream.write(raw)
                is_said = True
                with trio.move_on_after(1.0):
                    await stream.read(1 << 16)
                with trio.move_on_after(1.0):
                    await stream.muxed_stream.close()
    except* (*FAULTS, Rejected):
        pass
    return is_said
