"""`python -m bench.store`: what a block's commit costs beside writing the same bytes into a bare LMDB, both synced.

A ledger of 200,000 accounts; each block changes 1,000 of them and adds its own bytes. The commit is everything a node
does for it: checks, the room on the disk, the write, the sync, the new reader. The new state root is computed before,
and counted apart. The bare write puts the same keys and values into the same tables of another environment, in the
same order, in one transaction. Both take turns in the same folder, so that a slow disk is slow for both.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from bench.round import describe_machine
from milon.base.hashing import sha256
from milon.base.units import Height
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.lmdb_store import LmdbStore
from milon.state.store import Commit

RESULT = Path(__file__).parent / "results" / "store.json"
KEYS = 200_000  # in the ledger
UPDATES = 1_000  # in a block
BLOCK_BYTES = 200_000  # a block of 1,000 transfers
VALUE_BYTES = 60  # an account's record
MAP_BYTES = 4 << 30
GOAL = 3.0  # times the bare write


def _key(number: int) -> bytes:
    return b"account/" + sha256(b"%d" % number)


def _value(number: int, height: int) -> bytes:
    return (b"%d at %d " % (number, height)).ljust(VALUE_BYTES, b".")


class Bare:
    """The same tables with nothing around them."""

    def __init__(self, folder: Path) -> None:
        """In `folder`."""
        folder.mkdir()
        self._environment = lmdb.open(str(folder), map_size=MAP_BYTES, max_dbs=4)
        names = (b"ledger", b"nodes", b"blocks")
        self._tables = {name: self._environment.open_db(name) for name in names}

    def write(self, commit: Commit) -> None:
        """One transaction, synced."""
        with self._environment.begin(write=True) as transaction:
            for name, changes in ((b"ledger", commit.changes), (b"nodes", commit.nodes)):
                for key, value in sorted(changes.items()):
                    if value is None:
                        transaction.delete(key, db=self._tables[name])
                    else:
                        transaction.put(key, value, db=self._tables[name])
            for height, _, raw in commit.blocks:
                transaction.put(height.to_bytes(8, "big"), raw, db=self._tables[b"blocks"])


def _make_commit(store: LmdbStore, changes: Mapping[bytes, bytes | None], height: int) -> tuple[Commit, float]:
    start = time.perf_counter()
    root, nodes = compute_update(store.node, store.state_root() if height else EMPTY_ROOT, changes)
    spent = time.perf_counter() - start
    name = sha256(b"block %d" % height)
    blocks = ((Height(height), name, random.Random(height).randbytes(BLOCK_BYTES)),) if height else ()
    return Commit(blocks, (), (), changes, nodes, (Height(height), name), root), spent


def measure(folder: Path, blocks: int) -> dict[str, Any]:
    """Medians over `blocks` blocks, in milliseconds, and the median of the paired ratios."""
    store, bare = LmdbStore(folder / "store", MAP_BYTES), Bare(folder / "bare")
    first, _ = _make_commit(store, {_key(number): _value(number, 0) for number in range(KEYS)}, 0)
    store.commit(first)
    bare.write(first)
    chance = random.Random(1)
    roots, commits, writes = [], [], []
    for height in range(1, blocks + 1):
        chosen = chance.sample(range(KEYS), UPDATES)
        commit, spent = _make_commit(store, {_key(number): _value(number, height) for number in chosen}, height)
        roots.append(spent)
        turns = [(store.commit, commits), (bare.write, writes)]
        for write, times in turns if height % 2 else turns[::-1]:
            start = time.perf_counter()
            write(commit)
            times.append(time.perf_counter() - start)
    store.close()
    ratios = [ours / theirs for ours, theirs in zip(commits, writes, strict=True)]
    median = statistics.median
    return {
        "machine": describe_machine(),
        "blocks": blocks,
        "root_ms": 1_000 * median(roots),
        "commit_ms": 1_000 * median(commits),
        "bare_ms": 1_000 * median(writes),
        "ratio": median(ratios),
        "ratio_with_root": median((a + b) / c for a, b, c in zip(roots, commits, writes, strict=True)),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=60)
    blocks = parser.parse_args().blocks
    with tempfile.TemporaryDirectory(prefix="milon-store-") as folder:
        found = measure(Path(folder), blocks)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    root_ms, commit_ms, bare_ms, ratio = (found[name] for name in ("root_ms", "commit_ms", "bare_ms", "ratio"))
    print(f"a block of {UPDATES} changes to {KEYS} keys: root {root_ms:.1f} ms, commit {commit_ms:.1f} ms")
    print(f"bare LMDB {bare_ms:.1f} ms: {ratio:.2f} times (goal: at most {GOAL:.0f})")
    print(f"with the new root {found['ratio_with_root']:.2f} times")


if __name__ == "__main__":
    main()
