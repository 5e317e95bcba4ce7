"""Checks a block and the learning in it from nothing but a bootstrap address and the genesis hash.

First the certificates: the genesis by its hash, the validators from there by a light client, the block by their
finalization, the report under the header's roots, the job by its name. Then the work: segments are run again, the
aggregate and its evaluation computed again. Nothing is believed because a peer said it; what was not checked is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest, JobId, short
from milon.base.units import Count, Height
from milon.chain.block import Header, compute_header_hash
from milon.chain.genesis import Genesis, compute_genesis_hash, verify_genesis
from milon.chain.learning import ClosedRound, SettledClaim
from milon.chain.transaction import SubmitJob
from milon.node.light_client import LightClient
from milon.node.proofs import verify_contents
from milon.node.questions import AskBlock, AskGenesis, AskJob, BlockAnswer, JobAnswer, Question
from milon.node.task_context import RECORDS_MAX_BYTES, TaskContext, fetch_files, fetch_job, size_of_state
from milon.node.tasks import WITHHELD, with_withheld
from milon.p2p.transport import Channel, Transport
from milon.pol.claim import SegmentRecord, SegmentRecords, verify_records
from milon.pol.terms import JobSpec
from milon.pol.work import (
    AggregateRound,
    FinalState,
    Progress,
    ReplayItem,
    ReplaySegments,
    RoundAggregated,
    SegmentsReplayed,
)

_LOG = logging.getLogger(__name__)

ASK_S = 10.0  # one question to one peer
STATES_S = 60.0  # one state from all peers

T = TypeVar("T")


class Lie(Exception):
    """The block is final and says something that the bits contradict."""

    def __init__(self, claim: bytes, segment: int | None, detail: str) -> None:
        super().__init__(detail)
        self.claim = claim
        self.segment = segment
        self.detail = detail


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what it gave."""

    height: Height  # of the block
    hash: Digest  # of its header
    verdict: str  # "valid", or "invalid"
    detail: str  # what is wrong; empty where nothing is
    claim: str  # hexadecimal name of the claim that lies; empty where none does
    segment: int | None  # of that claim
    trainer: str  # hexadecimal; whose claim
    rounds: int  # closed by the block
    segments_total: int  # in its accepted claims
    segments_replayed: int  # of those, run again here
    proved: tuple[str, ...]  # in words
    not_proved: tuple[str, ...]  # in words


async def _ask(transport: Transport, question: Question, check: Callable[[bytes], T]) -> T:
    """The first answer that passes `check`, from any connected peer; a peer whose answer fails it is reported."""
    refusal = Rejected(Reason.UNAVAILABLE, "no peer is connected")
    for peer in transport.peers():
        try:
            raw = await transport.request(peer, Channel.SYNC, encode(question), timeout_s=ASK_S)
        except Rejected as error:
            refusal = error
            continue
        try:
            return await trio.to_thread.run_sync(check, raw)
        except Rejected as error:
            transport.report(peer, error.reason)
            refusal = error
    raise refusal


async def fetch_genesis(transport: Transport, genesis_hash: Digest) -> Genesis:
    """The genesis of that hash from any peer."""

    def check(raw: bytes) -> Genesis:
        genesis = decode(Genesis, raw)
        is_ours = compute_genesis_hash(genesis) == genesis_hash
        require(is_ours, Reason.WRONG_CHAIN, "the peer's genesis has another hash")
        verify_genesis(genesis)
        return genesis

    return await _ask(transport, AskGenesis(), check)


async def fetch_block(client: LightClient, transport: Transport, name: Height | Digest) -> BlockAnswer:
    """The final block at a height or of a hash: a light client proves its header, the header proves the rest."""
    proved: Header | None = None
    if not isinstance(name, bytes):
        proved = (await client.follow(name)).header
    wanted = name if isinstance(name, bytes) else compute_header_hash(proved) if proved is not None else Digest(b"")

    def check(raw: bytes) -> BlockAnswer:
        answer = decode(BlockAnswer, raw)
        is_it = compute_header_hash(answer.block.header) == wanted
        require(is_it, Reason.DIFFERS, "the peer sent another block")
        verify_contents(answer.block, answer.report)
        return answer

    answer = await _ask(transport, AskBlock(Digest(wanted)), check)
    if proved is None:
        proved = (await client.follow(answer.block.header.height)).header
        is_final = compute_header_hash(proved) == wanted
        require(is_final, Reason.BAD_PROOF, f"the final block at height {proved.height} is another one")
    return answer


async def _fetch_spec(transport: Transport, closed: ClosedRound) -> JobSpec:
    def check(raw: bytes) -> JobSpec:
        body = decode(JobAnswer, raw).body
        is_named = JobId(digest("transaction", encode(body))) == closed.job
        require(is_named, Reason.DIFFERS, "the job's transaction has another hash")
        if not isinstance(body.action, SubmitJob):
            raise Rejected(Reason.DIFFERS, "that transaction submits no job")
        is_spec = digest("job-spec", encode(body.action.spec)) == closed.spec
        require(is_spec, Reason.DIFFERS, "the job's spec is not the one the block commits to")
        return body.action.spec

    return await _ask(transport, AskJob(closed.job), check)


class Verifier:
    """Checks the rounds that a block closes, by running them again."""

    def __init__(
        self, context: TaskContext, transport: Transport, say: Callable[[str], None], patience_s: float = STATES_S
    ) -> None:
        """`say` takes lines for people watching; each state is looked for `patience_s` seconds at most."""
        self._context = context
        self._transport = transport
        self._say = say
        self._patience_s = patience_s
        self._trainers: dict[bytes, AccountId] = {}
        self._replayed = 0

    async def verify(self, answer: BlockAnswer, segments_max: int | None) -> VerifyReport:
        """Replay up to `segments_max` segments (None: all) of the block's accepted claims, then every aggregate."""
        header = answer.block.header
        lie: Lie | None = None
        total = 0
        proved = ["the block is final: a quorum of its epoch's validators signed it, whom the genesis leads to"]
        for closed in answer.report.closed:
            accepted = [claim for claim in closed.claims if claim.status == "accepted"]
            count = sum(int(claim.count) for claim in accepted)
            total += count
            left = count if segments_max is None else max(0, segments_max - self._replayed)
            try:
                await self._verify_round(closed, accepted, left, proved)
            except Lie as found:
                lie = found
                break
        trainer = self._trainers.get(lie.claim) if lie else None
        return VerifyReport(
            height=header.height,
            hash=compute_header_hash(header),
            verdict="invalid" if lie else "valid",
            detail=lie.detail if lie else "",
            claim=lie.claim.hex() if lie else "",
            segment=lie.segment if lie else None,
            trainer=trainer.hex() if trainer else "",
            rounds=len(answer.report.closed),
            segments_total=total,
            segments_replayed=self._replayed,
            proved=tuple(proved),
            not_proved=self._list_not_proved(answer, total),
        )

    def _list_not_proved(self, answer: BlockAnswer, total: int) -> tuple[str, ...]:
        missing = ["the rounds before this block, whose result is this block's first state"]
        if self._replayed < total:
            missing.append(f"{total - self._replayed} of {total} segments were not replayed")
        if not answer.report.closed:
            missing.append("nothing was learned in this block: it closes no round")
        return tuple(missing)

    async def _verify_round(
        self, closed: ClosedRound, accepted: list[SettledClaim], segments_max: int, proved: list[str]
    ) -> None:
        self._say(f"job {short(closed.job)} round {closed.round}: fetching the job")
        spec = await _fetch_spec(self._transport, closed)
        shares = share_out([int(claim.count) for claim in accepted], segments_max)
        for claim, count in zip(accepted, shares, strict=True):
            self._trainers[claim.claim] = claim.trainer
            await self._replay_claim(closed, spec, claim, count)
        if any(shares):
            proved.append(f"round {closed.round}: {sum(shares)} segments replay to the same bits")
        if not closed.outcome.void:
            await self._recompute(closed, spec, accepted)
            proved.append(f"round {closed.round}: the aggregate and its evaluation are the ones agreed, bit for bit")

    async def _records(self, claim: SettledClaim) -> tuple[SegmentRecord, ...]:
        path = await self._context.blobs.ensure(claim.records, RECORDS_MAX_BYTES, self._patience_s)
        raw = await trio.Path(path).read_bytes()
        try:
            records = decode(SegmentRecords, raw, RECORDS_MAX_BYTES).records
            verify_records(records, claim.records_root, int(claim.first), int(claim.count), claim.final_state)
        except Rejected as error:
            raise Lie(claim.claim, None, f"the claim's records do not fit it: {error}") from None
        return records

    async def _replay_claim(self, closed: ClosedRound, spec: JobSpec, claim: SettledClaim, count: int) -> None:
        """Replay the last `count` segments of a claim: a tampered final state shows in the last."""
        if count == 0:
            return
        self._say(f"round {closed.round}: replaying {count} of {claim.count} segments of {short(claim.trainer)}")
        records = await self._records(claim)
        places = range(len(records) - count, len(records))
        starts = [records[place - 1].state if place else closed.state for place in places]
        context = self._context
        files = await fetch_job(context, spec)
        files += await fetch_files(context, starts, await size_of_state(context, closed.state), self._patience_s)
        items = tuple(
            ReplayItem(records[place].segment, start, records[place])
            for place, start in zip(places, starts, strict=True)
        )
        request = ReplaySegments(spec, files, closed.seed, Count(closed.round), items)
        result: Any = await context.work(request, 0, _ignore)
        if not isinstance(result, SegmentsReplayed):
            raise RuntimeError("the worker answered something else")
        self._replayed += len(result.results)
        for replay in result.results:
            if not replay.is_same:
                detail = f"segment {replay.segment} replays to state {short(replay.state)}, the claim says otherwise"
                raise Lie(claim.claim, int(replay.segment), detail)

    async def _recompute(self, closed: ClosedRound, spec: JobSpec, accepted: list[SettledClaim]) -> None:
        self._say(f"round {closed.round}: computing the aggregate and its evaluation again")
        context = self._context
        withheld = tuple(refusal for refusal in closed.outcome.refused if refusal.reason == WITHHELD)
        absent = [refusal.trainer for refusal in withheld]
        present = [claim for claim in accepted if claim.trainer not in absent]
        files = await fetch_job(context, spec)
        limit = await size_of_state(context, closed.state)
        states = [closed.state, *(claim.final_state for claim in present)]
        files += await fetch_files(context, states, limit, self._patience_s)
        finals = tuple(
            FinalState(claim.trainer, Count(claim.count * spec.terms.steps_per_segment), claim.final_state)
            for claim in present
        )
        request = AggregateRound(spec, files, closed.state, Count(closed.round), finals, str(context.folder))
        result: Any = await context.work(request, 0, _ignore)
        if not isinstance(result, RoundAggregated):
            raise RuntimeError("the worker answered something else")
        if with_withheld(result.outcome, withheld) != closed.outcome:
            raise Lie(b"", None, f"round {closed.round}: the aggregate or its evaluation comes to other bits")


def share_out(counts: Sequence[int], most: int) -> list[int]:
    """How many segments of each claim to replay: `most` in all, one of each in turn; all where there are not more."""
    shares = [0] * len(counts)
    left = min(most, sum(counts))
    while left:
        for place, count in enumerate(counts):
            if left and shares[place] < count:
                shares[place] += 1
                left -= 1
    return shares


def _ignore(progress: Progress) -> None:
    """Progress is not shown per segment here."""
