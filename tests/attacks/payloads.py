"""Hostile payloads: what a peer may hand in as a state, records, a program, a manifest or an action.

An attempt is accepted if a decoder takes the bytes, or if anything in them runs. Refusing takes the decoder's own
error and nothing else; whatever else comes out of it ends the campaign.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.chain.transaction import Transaction
from milon.gpu.checkpoint import to_bytes
from milon.gpu.rows import parse_manifest
from milon.gpu.train import read_state
from milon.pol.claim import SegmentRecords
from milon.pol.program import Program
from milon.pol.terms import JobSpec
from tests.attacks.ground import Ground, Tried, grounds, is_accepted, open_state

MARK = os.path.join(tempfile.gettempdir(), f"milon-attack-mark-{os.getpid()}")  # made if a payload ever runs
STATE_BYTES_MAX = 1 << 20

Make = Callable[[Ground, random.Random], bytes]


def make_pickle(ground: Ground, chance: random.Random) -> bytes:
    """A pickle that makes a file when it is opened, alone or where a state's tensors would lie."""
    program = f"cposix\nsystem\n(S'touch {MARK}'\ntR.".encode()
    kind = chance.randrange(3)
    if kind == 0:
        return b"\x80\x02" + program
    if kind == 1:
        return b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + program
    header = ground.start[:8]
    return header + program.ljust(len(ground.start) - 8, b"\x00")


def make_deep(ground: Ground, chance: random.Random) -> bytes:
    """Lists in lists, or objects in objects of the header."""
    depth = chance.choice((100, 10_000, 200_000))
    if chance.random() < 0.5:
        return b"\x81" * depth + b"\x01"
    text = b'{"a":' * depth + b"1" + b"}" * depth
    return len(text).to_bytes(8, "little") + text


def make_huge(ground: Ground, chance: random.Random) -> bytes:
    """Lengths that nothing stands behind: to see whether memory is taken on a stranger's word."""
    size = chance.choice((1 << 31, 1 << 40, (1 << 63) - 1))
    kind = chance.randrange(4)
    if kind == 0:
        return size.to_bytes(8, "little") + b"{}"
    if kind == 1:
        text = b'{"model.a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size // 4, size)
        return len(text).to_bytes(8, "little") + text
    if kind == 2:
        return b"\x9b" + struct.pack(">Q", size)
    return b"\x82\x72segment-records/1\x9b" + struct.pack(">Q", size)


def make_not_finite(ground: Ground, chance: random.Random) -> bytes:
    """A state with a weight that is no number, or none that ends."""
    state = open_state(ground.start)
    names = [name for name in sorted(state) if state[name].is_floating_point() and state[name].numel()]
    tensor = state[chance.choice(names)].view(-1)
    tensor[chance.randrange(tensor.numel())] = chance.choice((float("nan"), float("inf"), float("-inf")))
    return to_bytes(state)


def make_misshapen(ground: Ground, chance: random.Random) -> bytes:
    """A state with a tensor more, less, of another shape or of another type."""
    state = open_state(ground.start)
    name = chance.choice(sorted(state))
    kind = chance.randrange(4)
    if kind == 0:
        del state[name]
    elif kind == 1:
        state["model.extra"] = torch.zeros(chance.randrange(1, 9))
    elif kind == 2:
        state[name] = torch.zeros((*state[name].shape, 2), dtype=state[name].dtype)
    else:
        other = torch.int32 if state[name].dtype != torch.int32 else torch.float32
        state[name] = state[name].to(other)
    return to_bytes(state)


def make_torn(ground: Ground, chance: random.Random) -> bytes:
    """A state with a byte changed in its header, cut short, or with something after its end."""
    raw = bytearray(ground.start)
    kind = chance.randrange(3)
    if kind == 0:
        return bytes(raw[: chance.randrange(len(raw))])
    if kind == 1:
        return bytes(raw) + chance.randbytes(chance.randrange(1, 64))
    length = int.from_bytes(raw[:8], "little")
    place = chance.randrange(8 + length)
    raw[place] ^= 1 << chance.randrange(8)
    return bytes(raw)


MAKERS: tuple[Make, ...] = (make_pickle, make_deep, make_huge, make_not_finite, make_misshapen, make_torn)


def _is_taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except Rejected:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Held:
    """Bytes in a node's hands."""

    ground: Ground
    raw: bytes

    def is_taken(self) -> bool:
        """Whether anything that reads a stranger's bytes takes these."""
        readers: list[Callable[[], object]] = [
            lambda: read_state(self.raw, self.ground.work.layout),
            lambda: parse_manifest(self.raw),
            lambda: decode(SegmentRecords, self.raw, STATE_BYTES_MAX),
            lambda: decode(Program, self.raw, STATE_BYTES_MAX),
            lambda: decode(JobSpec, self.raw),
            lambda: decode(Transaction, self.raw),
        ]
        return any(_is_taken(read) for read in readers) or is_accepted(self.ground, self.ground.honest, self.raw)


def attempt_payloads(seed: int) -> Iterator[Tried]:
    """Each payload, as every kind of thing that it could be taken for."""
    for ground, chance in grounds(seed):
        for make in MAKERS:
            raw = make(ground, chance)
            held = _Held(ground, raw)
            yield Tried(held.is_taken() or os.path.exists(MARK))


ATTACKS: dict[str, Callable[[int], Iterator[Tried]]] = {"hostile payloads": attempt_payloads}
