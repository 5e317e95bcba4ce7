"""The port through which a node sends and receives bytes: peers, numbered channels, gossip topics and requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, Protocol

import trio

from milon.base.errors import Reason

PeerId = NewType("PeerId", str)  # the libp2p peer id in base58: the host key's name on the network


class Channel(IntEnum):
    """What a payload is for; each has its own bounds."""

    CONSENSUS = 1
    SYNC = 2
    BLOB = 3
    TRANSACTION = 4
    GOSSIP = 5
    PEERS = 6


@dataclass(frozen=True, slots=True)
class Received:
    """A one-way message: from a direct stream, or from gossip (then `topic` is set and `peer` is who published it)."""

    peer: PeerId  # who sent it; proven by the connection, and for gossip by the publisher's signature
    channel: Channel  # which channel it came on; `GOSSIP` for gossip
    payload: bytes  # the bytes as sent, within the channel's bound
    topic: str = ""  # the gossip topic, empty on every other channel


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """What passed between this node and one peer since the transport was made."""

    bytes_in: int = 0  # payload bytes received, requests and answers included
    bytes_out: int = 0  # payload bytes sent, requests and answers included
    frames_in: int = 0  # messages, requests and answers received
    frames_out: int = 0  # messages, requests and answers sent
    drops: int = 0  # messages given up because a bounded queue was full or the peer did not read
    rejects: int = 0  # bytes or behaviour refused


class TaskStatus(Protocol):
    """What `nursery.start` passes to a task; the typing stubs that libp2p brings hide trio's own name for it."""

    def started(self) -> None:
        """Let `nursery.start` return."""
        ...


Responder = Callable[[PeerId, bytes], Awaitable[bytes]]  # a raised `Rejected` reaches the asker with its reason

# Bytes of one payload on each channel. A larger thing is a blob.
PAYLOAD_MAX_BYTES: Mapping[Channel, int] = {
    Channel.CONSENSUS: 4 << 20,  # a proposal with its block: the codec's largest value
    Channel.SYNC: 8 << 20,  # a batch of blocks: two of the largest
    Channel.BLOB: 4 << 20,  # the manifest of the largest blob is 2.2 MiB; a chunk is 1 MiB
    Channel.TRANSACTION: 1 << 20,  # a job's terms with its programs' digests, far below this
    Channel.GOSSIP: 64 << 10,  # gossip costs every node a copy: larger news travels by digest
    Channel.PEERS: 64 << 10,  # 64 announcements of at most 1 KiB
}


class Transport(Protocol):
    """Bytes between peers of one chain. Implementations pass `tests/conformance/test_transport.py`."""

    @property
    def peer_id(self) -> PeerId:
        """This node's own id."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Full multiaddresses ending in `/p2p/<id>`, known once `run` has started."""
        ...

    def peers(self) -> tuple[PeerId, ...]:
        """The peers of this chain that are connected now, in a fixed order."""
        ...

    def counters(self) -> Mapping[PeerId, PeerCounters]:
        """A frozen snapshot for a status page; peers long gone are forgotten."""
        ...

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started()` once it listens. Runs once."""
        ...

    def received(self) -> trio.MemoryReceiveChannel[Received]:
        """One-way messages in order of arrival, a bounded queue: gossip that does not fit is dropped and counted."""
        ...

    async def connect(self, address: str, *, timeout_s: float) -> PeerId:
        """Connect to a full multiaddress and greet; returns at once when already connected.

        Raises `Rejected`: `UNAVAILABLE` when nobody answers there in time or somebody else does, `WRONG_CHAIN` when the
        peer is on another chain, `NOT_ALLOWED` while it is banned, `IN_USE` when the address names this node's own key.
        """
        ...

    def disconnect(self, peer: PeerId) -> None:
        """Close every connection to `peer` now, without waiting for it."""
        ...

    def send(self, peer: PeerId, channel: Channel, payload: bytes) -> bool:
        """Queue a one-way message; False when the peer is not connected or its bounded queue is full.

        Order is kept per peer and channel; arrival is likely, never promised. `Rejected(TOO_LARGE)` beyond the bound.
        """
        ...

    def broadcast(self, channel: Channel, payload: bytes) -> None:
        """`send` to every connected peer."""
        ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip on a topic named in the settings; others receive it on `Channel.GOSSIP`, the publisher does not.

        `Rejected(TOO_LARGE)` beyond 64 KiB, `Rejected(UNKNOWN)` for another topic. It may be lost under load.
        """
        ...

    async def request(self, peer: PeerId, channel: Channel, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask one peer and wait for its answer.

        Raises the `Rejected` that the responder raised; `Rejected(UNAVAILABLE)` when the peer is not connected, does
        not serve the channel, dies, or does not answer in time; `Rejected(TOO_LARGE)` beyond the bound.
        """
        ...

    def serve(self, channel: Channel, responder: Responder) -> None:
        """Answer requests on `channel`; set before `run`. Several may run at once, a bounded number per peer."""
        ...

    def report(self, peer: PeerId, reason: Reason) -> None:
        """Count misbehaviour; enough of it disconnects the peer and refuses it for a while."""
        ...
