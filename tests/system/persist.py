"""`python -m tests.system.persist`: a real node is killed at every point where it writes something down.

Four validators run as processes of their own; one of them is started again and again, each time to be killed at another
point (`persist_points`), and then once more to stay. What must hold: all have the same headers, and so the same state
roots; nobody was accused; and of all votes that anybody ever heard of or has in its log, no two contradict each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.chain.certificate import Vote, VoteKind
from milon.client.refusals import NoNode
from milon.consensus.messages import LoggedCertificate, LoggedVote, LogRecord
from milon.node.config import load_config, save_config
from milon.node.vote_log import read_log
from milon_cli.processes import find_process, start_node, stop_nodes
from tests.system.live import Live, list_differences, live_network, tail_logs, wait_for
from tests.system.persist_points import POINTS, list_votes, preloading

VICTIM = 3
LOOKS = 40  # heights at which all stores are compared, the tip among them
SNAPSHOT_BLOCKS = 4  # the victim puts one on its shelf so often
OPTIONS = (
    *("--block-time-ms", "300", "--delta-ms", "300"),
    *("--set", "epoch_blocks=6", "--set", "unbond_blocks=400", "--set", "evidence_age_blocks=300"),
)
TIMES = (1, 2, 3, 5)  # how often the victim passes a point before it is killed there
RARE = ("snapshot", "validators", "blob")  # points that a run passes once in a while: killed at the first time alone

Told = dict[tuple[int, int], dict[VoteKind, object]]  # by epoch and view: what was voted for


class Persisting:
    """A network whose node `VICTIM` is killed at points."""

    def __init__(self, live: Live, scratch: Path) -> None:
        """Of a network that runs."""
        self.live = live
        self._scratch = scratch
        self._folder = live.folders[VICTIM]

    def stop(self) -> None:
        """The victim does not run."""
        stop_nodes([self._folder])

    def prepare(self) -> None:
        """The victim makes snapshots often, and does not run."""
        self.stop()
        save_config(self._folder, replace(load_config(self._folder), snapshot_blocks=SNAPSHOT_BLOCKS))

    def kill_at(self, point: str, count: int) -> None:
        """Start the victim, and wait until it has been killed there."""
        note = self._scratch / f"killed-{time.monotonic_ns()}"
        with preloading(self._scratch, MILON_KILL_AT=f"{point}:{count}", MILON_KILL_NOTE=str(note)):
            start_node(self._folder)

        def is_over() -> bool:
            if point.startswith("blob"):
                self._upload(f"{point} {count}")
            return find_process(self._folder) is None

        wait_for(f"node {VICTIM} is killed at {point}, {count}", is_over)
        assert note.exists() and note.read_text() == point, f"the node ended by itself, not at {point}"

    def _upload(self, text: str) -> None:
        file = self._scratch / "blob"
        file.write_text(text)
        with suppress(NoNode, Rejected, OSError), self.live.client(VICTIM, is_spending=True) as client:
            client.put_blob(file)

    def bring_back(self) -> None:
        """Start the victim to stay, and wait until it has caught up and has led a block since."""
        start_node(self._folder)
        account = self.live.accounts[VICTIM]
        since = max((status["height"] for index in range(VICTIM) if (status := self.live.status(index))), default=0)

        seen = since

        def has_led() -> bool:
            nonlocal seen
            status = self.live.status(0)
            while status is not None and seen < status["height"]:
                block = self.live.block(0, seen + 1)
                if block is None or block["header"]["proposer"] == account:
                    return block is not None
                seen += 1
            return False

        wait_for("the victim leads again", has_led)

    def list_chain_faults(self, first: int = 1) -> list[str]:
        """What does not hold of the chain from a height on, asked over HTTP: one chain, and nobody was accused."""
        live = self.live
        faults = list_differences(live, first, live.wait_same_tip(), LOOKS)
        for account in live.accounts:
            view = live.ask(0, lambda client, account=account: client.validator(account)) or {}
            if view.get("is_tombstoned", True) or view["taken_ppm"]:
                faults.append(f"{account}: {view}")
        return faults

    def list_logged(self) -> list[Vote]:
        """What is in all vote logs, whether the nodes run or not."""
        votes: list[Vote] = []
        for folder in self.live.folders:
            votes += list_logged(read_log((folder.votes / "votes.log").read_bytes(), str(folder.votes))[0])
        return votes


def read_heard(paths: Iterable[Path]) -> list[Vote]:
    """The votes that nodes heard, each once; the last of a file may be cut short where the node was killed."""
    found: set[bytes] = set()
    for path in paths:
        raw = path.read_bytes()
        start = 0
        while start + 4 <= len(raw):
            end = start + 4 + int.from_bytes(raw[start : start + 4], "big")
            if end <= len(raw):
                found.add(raw[start + 4 : end])
            start = end
    return [decode(Vote, raw) for raw in sorted(found)]


def list_logged(records: Sequence[LogRecord]) -> list[Vote]:
    """The votes of a log: own ones, and those in certificates."""
    found: list[Vote] = []
    for record in records:
        if isinstance(record, LoggedVote):
            found.append(record.vote)
        elif isinstance(record, LoggedCertificate):
            found.extend(list_votes(record.certificate))
    return found


def list_contradictions(votes: Iterable[Vote]) -> list[str]:
    """Where a signer said two things in one view that exclude each other, by rules written down here again."""
    told: dict[AccountId, Told] = {}
    faults = []
    for vote in votes:
        content = vote.content
        said = told.setdefault(vote.signer, {}).setdefault((content.epoch, content.view), {})
        before = said.setdefault(content.kind, content.block)
        both = VoteKind.NULLIFY in said and VoteKind.FINALIZE in said
        named = {said[kind] for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE) if kind in said}
        if before != content.block or both or len(named) > 1:
            faults.append(f"{vote.signer.hex()[:8]} contradicts itself in epoch {content.epoch}, view {content.view}")
    return faults


def plan_all() -> Iterator[tuple[str, int]]:
    """Every point, each as often as `TIMES` says."""
    for point in POINTS:
        for count in (1,) if point.startswith(RARE) else TIMES:
            yield point, count


def main() -> int:
    """Kill at every point; 1 where anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.persist", description=__doc__)
    parser.add_argument("--only", default="", help="points whose name has this in it")
    only = parser.parse_args().only
    plan = [(point, count) for point, count in plan_all() if only in point]
    began = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="milon-persist-")))
        with preloading(scratch / "preload", MILON_HEARD=str(scratch / "heard")):
            live = stack.enter_context(live_network(scratch / "net", VICTIM + 1, *OPTIONS))
        stack.push(lambda kind, error, trace: print(tail_logs(scratch / "net")) if kind else None)
        run = Persisting(live, scratch / "preload")
        run.prepare()
        for point, count in plan:
            run.kill_at(point, count)
            print(f"{time.monotonic() - began:6.1f} s  killed at {point}, time {count}", flush=True)
        run.bring_back()
        print(f"{time.monotonic() - began:6.1f} s  back to stay; comparing", flush=True)
        faults = run.list_chain_faults()
        stop_nodes(live.folders)
        votes = [*read_heard((scratch / "heard").iterdir()), *run.list_logged()]
        faults += list_contradictions(votes)
    print("\n".join(faults) or f"{len(plan)} kills, {len(votes)} votes, no contradiction, one chain", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
