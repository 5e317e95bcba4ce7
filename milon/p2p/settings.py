"""What a transport is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.errors import Reason, require

CHAIN_MAX_BYTES = 64  # a digest of the genesis, or a short name with it


@dataclass(frozen=True, slots=True, repr=False)
class TransportSettings:
    """A node's place on the network; it never prints its seed."""

    seed: bytes  # 32 bytes: the ed25519 seed of the host key
    chain: bytes  # which chain, with its genesis: peers with another value are refused
    topics: tuple[str, ...] = ()  # gossip topics it subscribes to and may publish on
    listen_host: str = "127.0.0.1"  # an IP address; nothing else is ever opened
    listen_port: int = 0  # 0: a free one, see `Transport.addresses`

    def __post_init__(self) -> None:
        require(len(self.seed) == 32, Reason.MALFORMED, f"a host key seed has 32 bytes, not {len(self.seed)}")
        require(0 < len(self.chain) <= CHAIN_MAX_BYTES, Reason.MALFORMED, "a chain is named by 1 to 64 bytes")
        require(0 <= self.listen_port < 1 << 16, Reason.OUT_OF_RANGE, f"port {self.listen_port}")

    def __repr__(self) -> str:
        return f"TransportSettings({self.listen_host}:{self.listen_port})"
