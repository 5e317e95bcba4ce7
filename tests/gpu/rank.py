"""One of several processes that run the programs of a folder together: `python -m tests.gpu.rank RANK RANKS FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from bench.golden import compute_digest
from milon.base.codec import decode
from milon.gpu.sharding import load_sharded
from milon.gpu.sharding_ports import join_ranks, leave_ranks
from milon.pol.program import Program


def main() -> None:
    """Print the digest of each program."""
    torch.set_num_threads(1)
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    port = join_ranks(rank, ranks, folder / "meeting")
    found = {}
    for path in sorted(folder.glob("*.program")):
        program = decode(Program, path.read_bytes(), 1 << 26)
        found[path.stem] = compute_digest(program, load_sharded(program, ["cpu"], port))
    leave_ranks()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
