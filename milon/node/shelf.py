"""Snapshots of the ledger on disk, made now and then for those who join without the past.

    snapshots/HEIGHT/head        the block and the proof that it is final
    snapshots/HEIGHT/INDEX       one chunk, encoded as it is sent
    snapshots/validators/EPOCH   a validator set: the ledger forgets it once no evidence of its epoch may come, and
                                 light clients that come from further back still ask for it

A folder appears whole under its name or not at all. Nothing here is part of the state: a snapshot is read from a
committed one, and a damaged file is noticed by whoever receives it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.units import Count, Epoch, Height
from milon.chain.block import Block
from milon.chain.certificate import Validator
from milon.chain.finality import FinalityProof
from milon.chain.params import Parameters, compute_epoch
from milon.node.application import CONTRACTS
from milon.node.folder import PRIVATE, read_file, refusing_os_errors, write_file
from milon.node.proofs import prove_finality
from milon.node.questions import SnapshotOffer
from milon.state.chunks import CHUNK_MAX_BYTES, choose_depth, make_chunk, split
from milon.state.ledger import Ledger
from milon.state.store import StoreReader

KEPT = 2  # snapshots: one is being fetched by somebody while the next is made
GROUP_BYTES = 64 << 20  # of the ledger held in memory while chunks are made
HEAD_MAX_BYTES = 4 << 20  # a block with its proof


@wire("snapshot-head/1")
@dataclass(frozen=True, slots=True)
class SnapshotHead:
    """After which block a snapshot was made, and why that one is final."""

    block: Block  # whose state root the chunks belong to
    proof: FinalityProof  # of its header
    depth: Count  # of the chunks


def _find_validators(reader: StoreReader, epoch: Epoch) -> tuple[Validator, ...]:
    """The validators of an epoch as the ledger has them; empty where it has forgotten them."""
    try:
        return CONTRACTS.validators_at(Ledger(reader), epoch)
    except Rejected:
        return ()


@wire("epoch-validators/1")
@dataclass(frozen=True, slots=True)
class EpochValidators:
    """The validators of an epoch."""

    epoch: Epoch  # which
    validators: tuple[Validator, ...]  # in order of account


class Shelf:
    """The snapshots in a folder. Calls block on the disk: keep them off the event loop."""

    def __init__(self, folder: Path) -> None:
        """In `folder`, which need not exist."""
        self._folder = folder
        self._kept_epoch = Epoch(0)  # the highest whose validators are here, as far as this run knows

    def keep_validators(self, reader: StoreReader, parameters: Parameters) -> None:
        """Keep the validators of every epoch up to the next block's that the ledger knows and this folder does not."""
        tip = reader.tip()
        newest = Epoch(0) if tip is None else compute_epoch(Height(tip[0] + 1), parameters)
        for number in range(self._kept_epoch + 1, newest + 1):
            epoch = Epoch(number)
            path = self._validators_path(epoch)
            validators = () if path.exists() else _find_validators(reader, epoch)
            if validators:
                write_file(path, encode(EpochValidators(epoch, validators)), PRIVATE)
        self._kept_epoch = max(self._kept_epoch, newest)

    def validators(self, epoch: Epoch) -> tuple[Validator, ...]:
        """The validators of an epoch; empty where they are not here."""
        path = self._validators_path(epoch)
        return decode(EpochValidators, read_file(path, HEAD_MAX_BYTES)).validators if path.exists() else ()

    def _validators_path(self, epoch: Epoch) -> Path:
        return self._folder / "validators" / str(int(epoch))

    def heights(self) -> tuple[Height, ...]:
        """Of the whole snapshots, ascending."""
        if not self._folder.is_dir():
            return ()
        names = [entry.name for entry in self._folder.iterdir() if (entry / "head").exists()]
        return tuple(sorted(Height(int(name)) for name in names if name.isascii() and name.isdigit()))

    def offers(self) -> tuple[SnapshotOffer, ...]:
        """What others may ask for."""
        return tuple(SnapshotOffer(height, self.head(height).depth) for height in self.heights())

    def head(self, height: Height) -> SnapshotHead:
        """Of the snapshot at a height; `Rejected(UNAVAILABLE)` where there is none."""
        return decode(SnapshotHead, read_file(self._folder / str(int(height)) / "head", HEAD_MAX_BYTES))

    def chunk(self, height: Height, index: int) -> bytes:
        """A chunk's encoding; `Rejected(UNAVAILABLE)` where there is none."""
        require(0 <= index < 1 << 32, Reason.OUT_OF_RANGE, f"chunk {index}")
        return read_file(self._folder / str(int(height)) / f"{index:08x}", CHUNK_MAX_BYTES)

    def make(self, reader: StoreReader) -> Height | None:
        """Make a snapshot of what `reader` holds, unmoved by commits, and forget old ones.

        None where the tip cannot be proved final by itself, as in the middle of a long sync.
        """
        tip = reader.tip()
        if tip is None or tip[0] == 0 or tip[0] in self.heights():
            return None
        raw = reader.block_by_height(tip[0])
        if raw is None or reader.certificate_at(tip[0]) is None:
            return None
        self._write(reader, decode(Block, raw), prove_finality(reader, tip[0]))
        for height in self.heights()[:-KEPT]:
            shutil.rmtree(self._folder / str(int(height)), ignore_errors=True)
        return tip[0]

    def _write(self, reader: StoreReader, block: Block, proof: FinalityProof) -> None:
        with refusing_os_errors(f"cannot write a snapshot in {self._folder}"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._folder.glob(".*"):
                shutil.rmtree(leftover, ignore_errors=True)
            partial = self._folder / f".{secrets.token_hex(6)}"
            partial.mkdir()
            try:
                depth = self._write_chunks(reader, partial)
                write_file(partial / "head", encode(SnapshotHead(block, proof, Count(depth))), PRIVATE)
                os.replace(partial, self._folder / str(int(block.header.height)))
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def _write_chunks(self, reader: StoreReader, folder: Path) -> int:
        """One pass over the ledger for each group of chunks that fits into memory together."""
        size = sum(len(key) + len(value) for key, value in reader.scan(b""))
        depth = choose_depth(size)
        root = reader.state_root()
        passes = min(-(-size // GROUP_BYTES), 1 << depth) or 1
        step = -(-(1 << depth) // passes)
        for first in range(0, 1 << depth, step):
            end = min(first + step, 1 << depth)
            parts = split(reader.scan(b""), depth, first, end)
            for index in range(first, end):
                raw = encode(make_chunk(reader.node, root, index, depth, parts.get(index, ())))
                (folder / f"{index:08x}").write_bytes(raw)
        return depth
