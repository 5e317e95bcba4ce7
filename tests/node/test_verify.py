"""What `milon verify-block` checks on each level, and what it says of lies and of what is missing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import ClaimId, Digest, JobId, VrfProof
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Count, Epoch, Height, Nonce, Round, TimeMs, View
from milon.chain.block import Block, Header
from milon.chain.learning import BlockReport, ClosedRound, SettledClaim
from milon.chain.params import Parameters
from milon.chain.transaction import SubmitJob, TransactionBody
from milon.gpu import work_rounds
from milon.gpu.checkpoint import from_bytes, to_bytes
from milon.gpu.work_library import Library, write_blob
from milon.node.pinpoint import compare_states, name_operation
from milon.node.questions import BlockAnswer, JobAnswer
from milon.node.task_context import TaskContext
from milon.node.verify import Verifier, share_out
from milon.node.verify_levels import Level, VerifyReport
from milon.node.work_progress import WorkBoard
from milon.p2p.transport import Channel, PeerId
from milon.pol.claim import SegmentRecord, SegmentRecords, compute_records_root
from milon.pol.verdict import RoundOutcome
from milon.pol.work import AggregateRound, BlobFile, FinalState, ReplaySegments, TrainSegments
from tests.gpu.small_job import SEED, list_files, open_small, prepare_small

KEYS = [secret_key_from(f"trainer {number}") for number in range(2)]
SEGMENTS = 3  # of each trainer
Records = tuple[SegmentRecord, ...]


@cache
def library() -> Library:
    """Programs and data, loaded once."""
    return Library()


def perform(request: Any) -> Any:
    """What a worker does."""
    with torch.no_grad():
        match request:
            case TrainSegments():
                return work_rounds.train(request, library(), lambda progress: None)
            case ReplaySegments():
                return work_rounds.replay(request, library())
            case AggregateRound():
                return work_rounds.aggregate(request, library())
    raise AssertionError(request)


@cache
def job() -> TransactionBody:
    """The transaction that submitted the small job; its aggregate is a plain mean."""
    spec = prepare_small().spec
    terms = replace(spec.terms, faulty_count=Count(0))
    submit = SubmitJob(replace(spec, terms=terms), Amount(1))
    return TransactionBody("test", KEYS[0].account, Nonce(0), Amount(1), submit)


class Blobs:
    """Blobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: set[Digest] = set()
        self.paths = {file.blob: Path(file.path) for file in list_files(prepare_small())}

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        path = self.paths.get(blob, self.folder / blob.hex())
        if blob in self.missing or not path.exists():
            raise Rejected(Reason.UNAVAILABLE, f"blob {blob.hex()[:8]} is nowhere")
        return path

    async def put_bytes(self, raw: bytes) -> Digest:
        return write_blob(self.folder, raw).blob

    async def put_file(self, path: Path) -> Digest:
        return write_blob(self.folder, path.read_bytes()).blob


class Peer:
    """A transport with one peer that knows the job."""

    def peers(self) -> tuple[PeerId, ...]:
        return (PeerId("peer"),)

    async def request(self, peer: PeerId, channel: Channel, payload: bytes, *, timeout_s: float) -> bytes:
        return encode(JobAnswer(job()))

    def report(self, peer: PeerId, reason: Reason) -> None:
        raise AssertionError(reason)


@cache
def trained(folder: Path) -> tuple[Records, ...]:
    """Both trainers' records, their states in the folder."""
    submit = job().action
    assert isinstance(submit, SubmitJob)
    spec = submit.spec
    files = list_files(prepare_small())
    found = []
    for number in range(2):
        request = TrainSegments(
            spec, files, spec.initial_state, SEED, Count(0), Count(number * SEGMENTS), Count(SEGMENTS), str(folder), ""
        )
        found.append(perform(request).records)
    return tuple(found)


@cache
def outcome(folder: Path) -> RoundOutcome:
    """What the honest claims come to."""
    return aggregate(folder, tuple(records[-1].state for records in trained(folder)))


def aggregate(folder: Path, finals: tuple[Digest, ...]) -> RoundOutcome:
    """What claims with these final states come to."""
    submit = job().action
    assert isinstance(submit, SubmitJob)
    spec = submit.spec
    blobs = Blobs(folder)
    places = [(state, blobs.paths.get(state, folder / state.hex())) for state in finals]
    files = (*list_files(prepare_small()), *(BlobFile(state, str(path)) for state, path in places))
    states = tuple(
        FinalState(key.account, Count(SEGMENTS * spec.terms.steps_per_segment), state)
        for key, state in zip(KEYS, finals, strict=True)
    )
    found: RoundOutcome = perform(
        AggregateRound(spec, files, spec.initial_state, Count(0), states, str(folder))
    ).outcome
    return found


FOLDER = Path(mkdtemp(prefix="milon-verify-"))


def block_of(claimed: tuple[Records, ...], agreed: RoundOutcome) -> BlockAnswer:
    """A block that closes the round with these claims."""
    submit = job().action
    assert isinstance(submit, SubmitJob)
    claims = []
    for number, records in enumerate(claimed):
        blob = write_blob(FOLDER, encode(SegmentRecords(records))).blob
        claims.append(
            SettledClaim(
                claim=ClaimId(digest("test", bytes([number]))),
                trainer=KEYS[number].account,
                first=Count(number * SEGMENTS),
                count=Count(SEGMENTS),
                start=submit.spec.initial_state,
                continues=None,
                records_root=compute_records_root(records),
                records=blob,
                final_state=records[-1].state,
                status="accepted",
                verifiers=(),
                replays=(),
                compute_ms=Count(0),
            )
        )
    closed = ClosedRound(
        job=JobId(digest("transaction", encode(job()))),
        round=Round(0),
        seed=SEED,
        state=submit.spec.initial_state,
        spec=digest("job-spec", encode(submit.spec)),
        claims=tuple(claims),
        outcome=agreed,
        payments=(),
    )
    nothing = Digest(bytes(32))
    header = Header(
        "test", Count(1), Height(9), Epoch(0), View(9), nothing, View(8), KEYS[0].account, TimeMs(9), nothing, nothing,
        nothing, nothing, nothing, nothing, nothing, nothing, nothing, VrfProof(bytes(80)), nothing,
    )  # fmt: skip
    return BlockAnswer(Block(header, (), ()), BlockReport((), (closed,)), None)  # type: ignore[arg-type]


async def verify(answer: BlockAnswer, blobs: Blobs | None = None, **how: Any) -> VerifyReport:
    """Check it, with a chance of our own."""
    held = blobs or Blobs(FOLDER)

    async def work(request: Any, priority: int, on_progress: Callable[[Any], None]) -> Any:
        return perform(request)

    context = TaskContext(
        key=KEYS[0], parameters=Parameters(), blobs=held, work=work, folder=FOLDER, board=WorkBoard(),
        adversary="", will_accept=False,
    )  # fmt: skip
    verifier = Verifier(context, Peer(), lambda line: None, 1.0, chance=random.Random(1))  # type: ignore[arg-type]
    return await verifier.verify(answer, **how)


async def test_every_level_says_what_it_proves() -> None:
    answer = block_of(trained(FOLDER), outcome(FOLDER))
    reports = {level: await verify(answer, level=level) for level in Level}
    assert {report.verdict for report in reports.values()} == {"valid"}
    assert [reports[level].segments_replayed for level in Level] == [0, 4, 6, 6]
    assert [len(reports[level].proved) for level in Level] == [1, 2, 2, 3]
    open_words = {level: " ".join(reports[level].not_proved) for level in Level}
    assert "6 of 6 segments were not replayed" in open_words[Level.CERTIFICATES]
    assert "2 of 6 segments were not replayed" in open_words[Level.SAMPLE]
    assert "34 %" in open_words[Level.SAMPLE]  # 1 - 0.9^4
    assert "not replayed" not in open_words[Level.SEGMENTS]
    assert "aggregate" in open_words[Level.SEGMENTS] and "aggregate" not in open_words[Level.FULL]
    assert (await verify(answer, segments_max=2)).segments_replayed == 2


def _lie(change: Callable[[dict[str, torch.Tensor]], None]) -> tuple[Records, ...]:
    """The second trainer's last state is another, under the traces of the real steps."""
    honest = trained(FOLDER)
    state = from_bytes((FOLDER / honest[1][-1].state.hex()).read_bytes())
    change(state)
    blob = write_blob(FOLDER, to_bytes(state)).blob
    return honest[0], (*honest[1][:-1], replace(honest[1][-1], state=blob))


def _nudge(state: dict[str, torch.Tensor]) -> None:
    state["model.5.weight"].view(-1).view(torch.int32)[7] ^= 1


async def test_a_lie_is_named_down_to_the_operation() -> None:
    claimed = _lie(_nudge)
    report = await verify(block_of(claimed, outcome(FOLDER)), level=Level.SEGMENTS)
    assert (report.verdict, report.segment, report.step) == ("invalid", 5, 1)
    assert report.trainer == KEYS[1].account.hex()
    work, _ = open_small()
    assert report.tensor == "model.5.weight"
    assert report.operation == name_operation(work.plan.program, "model.5.weight")
    assert report.operation.startswith("node ")
    assert "1 of" in report.finding and "element 7" in report.finding


async def test_what_a_claim_does_not_tell_is_said_so() -> None:
    honest = trained(FOLDER)
    other = replace(honest[0][1], state=honest[1][0].state, trace=honest[1][0].trace)
    claimed = ((honest[0][0], other, honest[0][2]), honest[1])
    report = await verify(block_of(claimed, outcome(FOLDER)), level=Level.SEGMENTS)
    assert (report.verdict, report.segment, report.step, report.operation) == ("invalid", 1, None, "")
    assert "cannot be told" in report.finding


async def test_a_false_aggregate_is_found_on_the_full_level_alone() -> None:
    false = replace(outcome(FOLDER), correct=Count(outcome(FOLDER).correct + 1))
    answer = block_of(trained(FOLDER), false)
    assert (await verify(answer, level=Level.SEGMENTS)).verdict == "valid"
    report = await verify(answer, level=Level.FULL)
    assert (report.verdict, report.segment) == ("invalid", None)
    assert "aggregate" in report.detail


async def test_what_is_missing_leaves_it_undecided() -> None:
    blobs = Blobs(FOLDER)
    blobs.missing.add(trained(FOLDER)[0][0].state)
    report = await verify(block_of(trained(FOLDER), outcome(FOLDER)), blobs)
    assert (report.verdict, report.reason) == ("undecided", "unavailable")
    assert report.detail and report.consequence and report.next_step
    assert report.claim == ""


class Sparse(Blobs):
    """Where a trainer kept few of its states; what the verifier makes itself is there."""

    async def put_file(self, path: Path) -> Digest:
        blob = await super().put_file(path)
        self.missing.discard(blob)
        return blob


async def test_states_that_were_not_kept_are_made_again() -> None:
    blobs = Sparse(FOLDER)
    blobs.missing.update(record.state for records in trained(FOLDER) for record in records[:-1])
    report = await verify(block_of(trained(FOLDER), outcome(FOLDER)), blobs, level=Level.SEGMENTS)
    assert (report.verdict, report.segments_replayed) == ("valid", 6)


async def test_a_lie_on_the_way_to_a_segment_is_found() -> None:
    honest = trained(FOLDER)
    other = replace(honest[0][0], trace=honest[1][0].trace)
    blobs = Sparse(FOLDER)
    blobs.missing.update(record.state for record in honest[0][:-1])
    found = []
    for segments_max in range(1, 4):
        claimed = ((other, *honest[0][1:]), honest[1])
        report = await verify(
            block_of(claimed, outcome(FOLDER)), blobs, level=Level.SEGMENTS, segments_max=segments_max
        )
        found.append((report.verdict, report.segment))
    assert ("invalid", 0) in found and {verdict for verdict, _ in found} <= {"valid", "invalid"}


async def test_a_full_disk_is_no_verdict() -> None:
    class Full(Blobs):
        async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
            raise Rejected(Reason.FULL, "the disk is full")

    with pytest.raises(Rejected) as caught:
        await verify(block_of(trained(FOLDER), outcome(FOLDER)), Full(FOLDER))
    assert caught.value.reason is Reason.FULL


def test_states_of_another_layout_cannot_be_compared(tmp_path: Path) -> None:
    _, start = open_small()
    (tmp_path / "mine").write_bytes(start)
    (tmp_path / "claimed").write_bytes(start[:-4])
    assert compare_states(tmp_path / "mine", tmp_path / "claimed") is None
    (tmp_path / "claimed").write_bytes(start)
    assert compare_states(tmp_path / "mine", tmp_path / "claimed") is None


@pytest.mark.parametrize(
    ("counts", "most", "shares"),
    [
        ([1, 1, 3, 3], 8, [1, 1, 3, 3]),  # all there are, however unequal
        ([3, 3, 1, 1], 100, [3, 3, 1, 1]),
        ([3, 3, 1, 1], 6, [2, 2, 1, 1]),
        ([5, 5], 1, [1, 0]),
        ([4, 4], 0, [0, 0]),
        ([], 10, []),
    ],
)
def test_the_budget_is_used_up(counts: list[int], most: int, shares: list[int]) -> None:
    assert share_out(counts, most) == shares
