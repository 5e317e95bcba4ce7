"""A process that commits without end, for the test that kills it: every commit writes one number everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

from milon.base.hashing import sha256
from milon.base.units import Height
from milon.state.lmdb_store import LmdbStore
from milon.state.store import Commit

KEYS = 60  # enough pages for a commit to take a while


def commit_number(number: int) -> Commit:
    """Commit `number`: the number is in every key, node, block, certificate and receipt."""
    text = b"%d" % number
    records: dict[bytes, bytes | None] = {sha256(b"%d" % key): text.ljust(500) for key in range(KEYS)}
    records[b"odd"] = None if number % 2 == 0 else text
    height = Height(number)
    return Commit(
        blocks=((height, sha256(text), text),),
        certificates=((height, text),),
        receipts=((height, text),),
        changes=records,
        nodes=records,
        tip=(height, sha256(text)),
        state_root=sha256(b"root" + text),
    )


def main(folder: str) -> None:
    """Commit from the store's tip on, telling each number once it is durable."""
    store = LmdbStore(Path(folder), map_bytes=1 << 20)
    tip = store.tip()
    number = 0 if tip is None else tip[0] + 1
    while True:
        store.commit(commit_number(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main(sys.argv[1])
