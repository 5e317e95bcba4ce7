"""`python -m tests.system.dispute`: disputes by bisection that nodes play by themselves, in real processes.

Four validators train a small job whose terms ask for bisection; the last one flips a bit in a step of its last segment
and stands by it. The first run kills the challenger's node (SIGKILL) in the middle of the dispute and starts it again:
the liar is refuted all the same, slashed and barred, the job goes on with the others, and `milon verify-block` agrees
from an empty folder. The second run kills the liar's node instead: its clock runs out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode
from milon.base.units import Height
from milon.chain.block import Block
from milon.chain.learning import BlockReport
from milon.chain.transaction import AnswerDispute, Challenge, ChooseDispute, Judge, Transaction
from milon.gpu.attacks_steps import BIT_FLIP
from milon.state.lmdb_store import LmdbVisit
from tests.system.live import PATIENT, Json, Live, live_network, run_milon, wait_for

NODES, LIAR = 4, 3
BLOCK_MS = 500
TIMES = ("--block-time-ms", str(BLOCK_MS), "--delta-ms", str(BLOCK_MS))
TERMS = ("--audit", "1", "--term", "settlement=bisection", "--term", "trainers-min=3", *PATIENT)
CLOCK_BLOCKS = 2_000  # of a side that is killed and comes back
SHORT_BLOCKS = 60  # of a side that does not come back
MIDDLE_MOVES = 3  # so far a dispute has come when a node is killed


@dataclass(slots=True)
class Played:
    """What the chain holds of disputes."""

    challenger: str = ""  # who challenged first
    moves: int = 0  # answers and choices that were taken
    bytes_all: int = 0  # of their transactions
    bytes_max: int = 0  # of the longest
    judgements: int = 0  # words of referees that were taken
    blocks: int = 0  # from the first challenge to the last of all these
    seconds: float = 0.0  # the same, by the blocks' time


def list_taken(chain: Path, first: int) -> Iterator[tuple[Block, Transaction]]:
    """All transactions that took effect in blocks from a height on, read beside the node that writes them."""
    with closing(LmdbVisit(chain)) as visit:
        tip = visit.tip()
        for height in range(first, int(tip[0]) + 1 if tip else 0):
            raw, report = visit.block_by_height(Height(height)), visit.receipts_at(Height(height))
            if raw is None or report is None:
                continue
            block, receipts = decode(Block, raw), decode(BlockReport, report).receipts
            pairs = zip(block.transactions, receipts, strict=True)
            yield from ((block, transaction) for transaction, receipt in pairs if not receipt.problem)


def measure(live: Live, first: int, node: int = 0) -> Played:
    """The disputes in blocks from a height on, as a node holds them."""
    played = Played()
    begun: Block | None = None
    for block, transaction in list_taken(live.folders[node].chain, first):
        match transaction.body.action:
            case Challenge() if begun is None:
                begun, played.challenger = block, transaction.body.sender.hex()
            case AnswerDispute() | ChooseDispute():
                size = len(encode(transaction))
                played.moves += 1
                played.bytes_all += size
                played.bytes_max = max(played.bytes_max, size)
            case Judge():
                played.judgements += 1
            case _:
                continue
        if begun is not None:
            played.blocks = int(block.header.height - begun.header.height)
            played.seconds = (block.header.time_ms - begun.header.time_ms) / 1_000
    return played


def wait_middle(live: Live, first: int) -> Played:
    """What was played once a dispute is in its middle."""

    def probe() -> Played | None:
        played = measure(live, first)
        return played if played.moves >= MIDDLE_MOVES else None

    found: Played = wait_for("the middle of a dispute", probe)
    assert not found.judgements, "the dispute was over before a node could be killed"
    return found


def fate_of(closed: Json, account: str) -> str:
    """What became of a trainer's claim in a closed round."""
    return next((claim["status"] for claim in closed["claims"] if claim["trainer"] == account), "no claim")


def list_payments(closed: Json, *reasons: str) -> list[tuple[str, str, int]]:
    """A closed round's payments for these reasons."""
    return [(pay["reason"], pay["account"], pay["amount"]) for pay in closed["payments"] if pay["reason"] in reasons]


def settle_with_a_restart(live: Live) -> None:
    """The liar is refuted, though its challenger's node is killed in the middle and started again."""
    status = live.status(0)
    assert status is not None
    first = int(status["height"])
    job = live.submit("--rounds", "2", *TERMS, "--term", f"dispute-blocks={CLOCK_BLOCKS}")
    challenger = live.accounts.index(wait_middle(live, first).challenger)
    live.kill(challenger)
    live.up()
    found = live.wait_finished(LIAR, job)
    liar, (one, two) = live.accounts[LIAR], found["rounds"]
    played = measure(live, first, LIAR)
    print(
        f"refuted after {played.moves} moves of {played.bytes_all} bytes (the longest {played.bytes_max}) and "
        f"{played.judgements} judgements, in {played.blocks} blocks and {played.seconds:.1f} s, with node "
        f"{challenger}, the challenger's, killed in between"
    )
    assert fate_of(one, liar).startswith("refuted"), one["claims"]
    honest = sorted(account for account in live.accounts if account != liar)
    assert sorted(one["outcome"]["accepted"]) == sorted(two["outcome"]["accepted"]) == honest
    (slash,), (refutation,) = list_payments(one, "slash"), list_payments(one, "refutation")
    assert slash[1] == liar and refutation == ("refutation", live.accounts[challenger], slash[2] // 2)
    print(f"slashed by {slash[2]}, half of it the challenger's; barred; both rounds closed by the other three")
    verify(live, one["height"])


def verify(live: Live, height: int) -> None:
    """Somebody who knows an address and the genesis hash alone finds the block valid."""
    status = live.status(0)
    assert status is not None
    known = ("--bootstrap", status["addresses"][0], "--genesis-hash", status["genesis_hash"])
    began = time.monotonic()
    answer = run_milon("verify-block", str(height), *known).answer
    assert answer["verdict"] == "valid", answer
    print(
        f"milon verify-block {height}: {answer['verdict']}, {answer['segments_replayed']} segments replayed, "
        f"{time.monotonic() - began:.1f} s"
    )


def run_out_the_clock(live: Live) -> None:
    """The liar's node disappears in the middle of a dispute: its claim is void, its stake stays."""
    status = live.status(0)
    assert status is not None
    first = int(status["height"])
    job = live.submit("--rounds", "1", *TERMS, "--term", f"dispute-blocks={SHORT_BLOCKS}")
    wait_middle(live, first)
    live.kill(LIAR)
    (closed,) = live.wait_finished(0, job)["rounds"]
    fate = fate_of(closed, live.accounts[LIAR])
    assert fate.startswith("void: the trainer gave no answer"), fate
    assert len(closed["outcome"]["accepted"]) == NODES - 1
    assert not list_payments(closed, "slash", "withholding", "forfeit")
    played = measure(live, first)
    print(f"the trainer's node killed after {played.moves} moves: its claim is {fate!r}; nobody lost stake")


def main() -> int:
    """Both runs, one after the other, on one network."""
    began = time.monotonic()
    options = (*TIMES, "--adversary", f"{LIAR}={BIT_FLIP}")
    with (
        tempfile.TemporaryDirectory(prefix="milon-dispute-") as scratch,
        live_network(Path(scratch) / "net", NODES, *options) as live,
    ):
        settle_with_a_restart(live)
        run_out_the_clock(live)
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
