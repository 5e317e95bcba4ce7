"""What a node must still know of the rounds it takes part in after a restart, and forgetting it once they are closed.

    JOB-ROUND-FIRST.round           what was claimed of the segments from FIRST on, and the traces behind it
    JOB-ROUND-DUTY.segments/        finished segments of a training that is under way, written by the worker
    JOB-ROUND-CLAIM.attestation     what a commitment will be opened with
    JOB-ROUND-CLAIM.watched         which segments of another's claim were looked at unasked

All lie in the folder `work/`. Whoever adds a kind begins its name in the same way.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Count
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import TrainDuty, name_duty
from milon.contracts.jobs import load_job, load_open_jobs
from milon.contracts.records import OpenRound, open_round_key
from milon.node.folder import PRIVATE, read_file, refusing_os_errors, write_file
from milon.pol.claim import SegmentRecord
from milon.state.ledger import Ledger

_LOG = logging.getLogger(__name__)

OWN_ROUND_MAX_BYTES = 4 << 20  # records and traces of 4,096 segments, and the job's spec
_KINDS = "round|segments|attestation|watched"
_NAME = re.compile(rf"(?P<job>[0-9a-f]{{64}})-(?P<round>[0-9]{{1,18}})(?:-[0-9a-f]+)?\.(?:{_KINDS})")

_SCRATCH = re.compile(r"(?:[a-z]+-)?[0-9a-f]{16}")  # of aggregations, and of states that were made again


@wire("own-round/2")
@dataclass(frozen=True, slots=True)
class OwnRound:
    """What a trainer must still know after a restart: the records it claimed, what is behind them, and from what."""

    records: tuple[SegmentRecord, ...]  # in order
    traces: tuple[Digest, ...]  # one a record
    compute_ms: Count  # spent
    duty: TrainDuty  # what was asked for
    keep_every: Count  # k: the states after k, 2k, ... segments and the last one stay while the round is open

    def stays(self, place: int) -> bool:
        """Whether the state of the record at `place` is one of those."""
        return (place + 1) % self.keep_every == 0 or place == len(self.records) - 1


@dataclass(frozen=True, slots=True)
class OpenRounds:
    """Which rounds somebody may still ask about."""

    rounds: Mapping[JobId, int]  # the round each open job is in, or comes to next
    ended: frozenset[Digest]  # final states of the own claims that are over, though their rounds are open

    def is_over(self, job: JobId, round_number: int) -> bool:
        """Whether the round is closed, as far as this ledger knows: a job it does not know is over."""
        return round_number < self.rounds.get(job, round_number + 1)


def find_open_rounds(ledger: Ledger, account: AccountId) -> OpenRounds:
    """The rounds that are open now, and which of the account's claims in them are not."""
    rounds: dict[JobId, int] = {}
    ended: set[Digest] = set()
    for job in load_open_jobs(ledger):
        opened = ledger.load(open_round_key(job), OpenRound)
        rounds[job] = int(opened.round if opened else load_job(ledger, job).next_round)
        for claim in (load_claim(ledger, name) for name in opened.claims) if opened else ():
            if claim.trainer == account and claim.status in (ClaimStatus.REFUTED, ClaimStatus.VOID):
                ended.add(claim.final_state)
    return OpenRounds(rounds, frozenset(ended))


def own_round_path(folder: Path, job: bytes, round_number: int, first: int) -> Path:
    """Where an `OwnRound` lies; a round may have two, the second one of segments that were taken over."""
    return folder / f"{job.hex()}-{round_number}-{first}.round"


def segments_folder(folder: Path, duty: TrainDuty) -> Path:
    """Where the worker keeps a training's finished segments."""
    return folder / f"{duty.job.hex()}-{duty.round}-{name_duty(duty).hex()[:16]}.segments"


def load_own_round(folder: Path, job: bytes, round_number: int, first: int) -> OwnRound:
    """What this node claimed in a round from segment `first` on; `Rejected(UNAVAILABLE)` where it is not there."""
    return _read(own_round_path(folder, job, round_number, first))


def _read(path: Path) -> OwnRound:
    return decode(OwnRound, read_file(path, OWN_ROUND_MAX_BYTES), OWN_ROUND_MAX_BYTES)


def keep_own_round(folder: Path, own: OwnRound) -> None:
    """Write it, durable. `Rejected(FULL)` where the disk is."""
    path = own_round_path(folder, own.duty.job, int(own.duty.round), int(own.duty.assignment.first))
    write_file(path, encode(own), PRIVATE, overwrite=True)


def list_own_rounds(folder: Path) -> tuple[OwnRound, ...]:
    """All that can be read, in order of name."""
    found: list[OwnRound] = []
    for path in sorted(folder.glob("*.round")):
        try:
            found.append(_read(path))
        except Rejected as error:
            _LOG.warning("%s is passed over: %s", path.name, error)
    return tuple(found)


def forget_closed_rounds(folder: Path, still_open: OpenRounds) -> int:
    """Remove what is kept of rounds that are over; how many files and folders that were."""
    count = 0
    with refusing_os_errors(f"cannot tidy up {folder}"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match is None or not still_open.is_over(_job_of(match), int(match["round"])):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            count += 1
    return count


def forget_leftovers(folder: Path) -> int:
    """Remove the scratch folders of a node that was killed, before this one makes its own; how many there were."""
    with refusing_os_errors(f"cannot tidy up {folder}"):
        found = [path for path in folder.iterdir() if _SCRATCH.fullmatch(path.name)] if folder.is_dir() else []
        for path in found:
            shutil.rmtree(path)
    return len(found)


def _job_of(match: re.Match[str]) -> JobId:
    return JobId(Digest(bytes.fromhex(match["job"])))


def find_own_round(folder: Path, duty: TrainDuty) -> OwnRound | None:
    """What was trained for a duty before; None where nothing is there that can be read."""
    try:
        own = load_own_round(folder, duty.job, int(duty.round), int(duty.assignment.first))
    except Rejected as error:
        if error.reason is not Reason.UNAVAILABLE:
            _LOG.warning("round %d of job %s is trained again: %s", duty.round, duty.job.hex()[:8], error)
        return None
    return own if own.duty == duty else None
