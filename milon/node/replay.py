"""Runs a stored chain again through the contracts and compares what comes out with what the blocks and the store say.

Each block must follow from its parent, its roots must come out again from its transactions, and every certificate must
carry a quorum. At the end the ledger that came out is compared with the stored one key by key, and the stored tree node
by node: that finds damage which no block would show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Height, TimeMs
from milon.chain.block import Block, compute_header_hash
from milon.chain.finality import decode_finality
from milon.chain.genesis import Genesis
from milon.chain.learning import BlockReport
from milon.chain.params import is_last_of_epoch
from milon.consensus.application import Config, make_config
from milon.consensus.blocks import execute_block
from milon.consensus.restore import restore
from milon.consensus.state import NO_PLACE, State
from milon.node.application import CONTRACTS, prepare_store
from milon.node.folder import NodeFolder
from milon.node.shelf import Shelf
from milon.node.testnet_files import load_genesis
from milon.state.chunks import CHUNK_MAX_BYTES, StateChunk, assemble
from milon.state.differences import StateDiffers, compare_ledgers
from milon.state.lmdb_store import LmdbVisit
from milon.state.memory_store import MemoryStore
from milon.state.store import Commit

PROGRESS_BLOCKS = 200  # between two words to whoever watches


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where the replay and the store part."""

    height: Height  # of the block; the tip's where only the stored tables are wrong
    what: str  # "block", "state-root", "receipts", "certificate", "ledger", "tree" or "chain"
    expected: str  # what the block or the store says, hexadecimal; empty where it is not a hash
    found: str  # what came out here
    family: str  # the first family of ledger keys that differs; empty where it cannot be known
    cause: str  # in words
    next_step: str  # for the operator


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay came to."""

    first: Height  # first block run again
    last: Height  # last block run again
    certificates: int  # checked
    mismatch: Mismatch | None  # the first; none: everything came out again


_STORE = "this node's store is damaged: move its chain folder away and let the node fetch the chain anew"
_SOFTWARE = (
    "the chain was made by rules other than this program's: compare versions with the other nodes (`milon status`), "
    "and replay with the version that they run; if that is yours, report it with this message"
)


class _Replay:
    """A chain on its way from a starting state; the store is only read."""

    def __init__(self, genesis: Genesis, visit: LmdbVisit, start: MemoryStore) -> None:
        self._genesis = genesis
        self._visit = visit
        self.store = start
        self._config, self._state = self._open()
        self.certificates = 0

    def _open(self) -> tuple[Config, State]:
        """The engine's own view of the state reached: its validators are those of the epoch that follows."""
        config = make_config(self._genesis, self.store, CONTRACTS)
        state, _ = restore(config, (), NO_PLACE, TimeMs(0))
        return config, state

    @property
    def height(self) -> Height:
        """Reached so far."""
        return self._state.tip.height

    def take(self, raw: bytes) -> Mismatch | None:
        """Run the next block; what is wrong with it, if anything."""
        found = self._check_stored(raw)
        if found is not None:
            return found
        block = decode(Block, raw)
        header = block.header
        try:
            entry = execute_block(self._config, self._state, self._state.tip, block)
        except StateDiffers as error:
            family = error.suspect or (error.families[0][0] if len(error.families) == 1 else "")
            hashes = (error.expected.hex(), error.found.hex())
            return Mismatch(header.height, "state-root", *hashes, family, error.detail, _SOFTWARE)
        except Rejected as error:
            return Mismatch(header.height, "block", "", "", "", str(error), _SOFTWARE)
        name = compute_header_hash(header)
        found = self._check_receipts(header.height, encode(BlockReport(entry.receipts, entry.closed)))
        if found is not None:
            return found
        certificate = self._visit.certificate_at(header.height)
        if certificate is not None:
            found = self._check_certificate(header.height, certificate, name)
            if found is not None:
                return found
        is_last_of_set = is_last_of_epoch(header.height, self._genesis.parameters)
        blocks = ((header.height, name, raw),) if is_last_of_set else ()  # `_open` asks for no other
        tip = (header.height, name)
        self.store.commit(Commit(blocks, (), (), entry.changes, entry.nodes, tip, header.state_root))
        if is_last_of_set:
            self._config, self._state = self._open()
        else:
            self._state = replace(self._state, tip=entry.ancestor)
        return None

    def _check_stored(self, raw: bytes) -> Mismatch | None:
        """Whether the stored bytes are the block that its child, or the tip, names: if not, nothing else counts."""
        height = Height(self.height + 1)
        tip = self._visit.tip()
        named = None if tip is None or tip[0] > height else tip[1]
        try:
            child = self._visit.block_by_height(Height(height + 1))
            named = (
                decode(Block, child).header.parent_hash if child is not None else tip[1] if tip is not None else None
            )
            name = compute_header_hash(decode(Block, raw).header)
        except Rejected as error:
            return Mismatch(
                height, "block", "", "", "", f"the stored block, or its child, cannot be read: {error}", _STORE
            )
        if name == named or (child is None and tip is not None and tip[0] > height):
            return None
        expected = "" if named is None else named.hex()
        return Mismatch(
            height, "block", expected, name.hex(), "", "the chain names another block at this height", _STORE
        )

    def _check_receipts(self, height: Height, found: bytes) -> Mismatch | None:
        stored = self._visit.receipts_at(height)
        if stored in (None, found):
            return None
        cause = "the stored report of the block is not the one its transactions lead to; the block itself is right"
        return Mismatch(height, "receipts", "", "", "", cause, _STORE)

    def _check_certificate(self, height: Height, raw: bytes, name: Digest) -> Mismatch | None:
        try:
            proof = decode_finality(raw)
            certificate, named = proof.finalization, proof.headers[0].parent_hash if proof.headers else None
            is_of_block = (named or certificate.content.block) == name
            require(is_of_block, Reason.DIFFERS, "the stored finalization names another block")
            self._config.cryptography.verify_certificate(
                certificate, self._genesis.chain_id, self._state.members.validators
            )
        except Rejected as error:
            return Mismatch(height, "certificate", "", "", "", str(error), _STORE)
        self.certificates += 1
        return None

    def compare(self) -> Mismatch | None:
        """The state reached with the stored one, which must be of the same height."""
        height = self.height
        reached: Mapping[bytes, bytes] = dict(self.store.scan(b""))
        differences = compare_ledgers(reached, self._visit.scan(b""))
        roots = (self._visit.state_root().hex(), self.store.state_root().hex())
        if differences:
            words = "; ".join(
                f"{entry.family}: {entry.missing} keys missing, {entry.extra} too many, {entry.changed} changed, "
                f"such as {entry.example.hex()[:80]}"
                for entry in differences
            )
            cause = f"the stored ledger is not the one the blocks lead to: {words}"
            return Mismatch(height, "ledger", *roots, differences[0].family, cause, _STORE)
        if roots[0] != roots[1]:
            return Mismatch(height, "ledger", *roots, "", "the stored root is not its ledger's", _STORE)
        for position, record in self._visit.scan_nodes():
            if self.store.node(position) != record:
                cause = f"the stored tree's node at {position.hex()[:80]} is not the one its ledger has"
                return Mismatch(height, "tree", *roots, "", cause, _STORE)
        return None


def replay_chain(
    genesis: Genesis,
    visit: LmdbVisit,
    start: MemoryStore | None = None,
    say: Callable[[int, int], None] = lambda height, tip: None,
) -> ReplayReport:
    """Run the stored blocks again up to the store's tip, from genesis or from a `start` that holds a verified state.

    `say` hears height and tip now and then. `Rejected(UNAVAILABLE)` where the store has no block to go on with.
    """
    tip = visit.tip()
    if tip is None:
        raise Rejected(Reason.UNAVAILABLE, "the store is empty; there is nothing to replay")
    if start is None:
        start = MemoryStore()
        prepare_store(start, genesis)
    replay = _Replay(genesis, visit, start)
    first = Height(replay.height + 1)
    mismatch: Mismatch | None = None
    while mismatch is None and replay.height < tip[0]:
        height = Height(replay.height + 1)
        raw = visit.block_by_height(height)
        if raw is None:
            raise Rejected(
                Reason.UNAVAILABLE,
                f"block {height} is not in this store, which began later or was pruned; nothing more can be replayed; "
                "replay with --from-snapshot, or on a node with --mode archive",
            )
        mismatch = replay.take(raw)
        if height % PROGRESS_BLOCKS == 0:
            say(height, tip[0])
    if mismatch is None:
        reached = start.tip()
        if reached != tip:
            here = "" if reached is None else reached[1].hex()
            mismatch = Mismatch(tip[0], "chain", tip[1].hex(), here, "", "the stored tip is another block", _STORE)
        else:
            mismatch = replay.compare()
    return ReplayReport(first, replay.height, replay.certificates, mismatch)


def load_start(folder: NodeFolder, visit: LmdbVisit) -> MemoryStore:
    """The state of the folder's newest snapshot, checked against its own root and the stored block.

    `Rejected`: UNAVAILABLE where there is no snapshot, BAD_PROOF or DIFFERS where it is not of this chain.
    """
    shelf = Shelf(folder.snapshots)
    heights = shelf.heights()
    require(bool(heights), Reason.UNAVAILABLE, f"{folder.snapshots} holds no snapshot; replay from genesis")
    head = shelf.head(heights[-1])
    header = head.block.header
    name, raw = compute_header_hash(header), encode(head.block)
    is_ours = visit.block_by_height(header.height) in (None, raw)
    require(is_ours, Reason.DIFFERS, f"the snapshot of height {header.height} is not of the stored block")
    chunks = (
        decode(StateChunk, shelf.chunk(header.height, index), CHUNK_MAX_BYTES) for index in range(1 << head.depth)
    )
    ledger, nodes = assemble(header.state_root, chunks)
    start = MemoryStore()
    tip = (header.height, name)
    start.commit(Commit(((*tip, raw),), (), (), dict(ledger), nodes, tip, header.state_root))
    return start


def replay_folder(
    folder: NodeFolder, is_from_snapshot: bool = False, say: Callable[[int, int], None] = lambda height, tip: None
) -> ReplayReport:
    """Replay the chain of a node's folder, whether or not the node runs."""
    genesis = load_genesis(folder.genesis)
    visit = LmdbVisit(folder.chain)
    try:
        start = load_start(folder, visit) if is_from_snapshot else None
        return replay_chain(genesis, visit, start, say)
    finally:
        visit.close()
