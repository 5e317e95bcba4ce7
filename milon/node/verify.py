"""Checks a block and the learning in it from nothing but a bootstrap address and the genesis hash.

First the certificates: the genesis by its hash, the validators from there by a light client, the block by their
finalization, the report under the header's roots, the job by its name. Then the work: segments are run again, the
aggregate and its evaluation computed again. Nothing is believed because a peer said it; what was not checked is said.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import NO_DIGEST, AccountId, ClaimId, Digest, JobId, short
from milon.base.units import Count, Height
from milon.chain.block import Header, compute_header_hash
from milon.chain.genesis import Genesis, compute_genesis_hash, verify_genesis
from milon.chain.learning import ClosedRound, SettledClaim
from milon.chain.transaction import SubmitJob
from milon.node.light_client import LightClient
from milon.node.pinpoint import find_difference
from milon.node.proofs import verify_contents
from milon.node.questions import AskBlock, AskGenesis, AskJob, BlockAnswer, JobAnswer, Question
from milon.node.task_context import (
    RECORDS_MAX_BYTES,
    TaskContext,
    as_result,
    fetch_files,
    fetch_job,
    size_of_state,
)
from milon.node.tasks import WITHHELD, with_withheld
from milon.node.verify_levels import CERTIFIED, SAMPLE_SEGMENTS, Done, Level, Lie, VerifyReport, make_report
from milon.node.verify_starts import supply_start
from milon.p2p.transport import Channel, Transport
from milon.pol.claim import SegmentRecord, SegmentRecords, verify_records
from milon.pol.terms import JobSpec
from milon.pol.work import (
    AggregateRound,
    Progress,
    ReplayItem,
    ReplaySegments,
    RoundAggregated,
    SegmentReplayed,
    SegmentsReplayed,
    collect_finals,
)

ASK_S = 10.0  # one question to one peer
STATES_S = 60.0  # one state from all peers

T = TypeVar("T")


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
        self,
        context: TaskContext,
        transport: Transport,
        say: Callable[[str], None],
        patience_s: float = STATES_S,
        show: Callable[[int, int], None] = lambda done, total: None,
        chance: random.Random | None = None,
    ) -> None:
        """`say` takes lines for people watching, `show` how many of how many segments are done.

        Each state is looked for `patience_s` seconds at most. `chance` draws the sample; nobody can foresee it
        unless it is given.
        """
        self._context = context
        self._transport = transport
        self._say = say
        self._show = show
        self._patience_s = patience_s
        self._chance = chance or random.SystemRandom()
        self._trainers: dict[bytes, AccountId] = {}
        self._replayed = 0
        self._wanted = 0
        self._recomputed = 0

    async def verify(
        self, answer: BlockAnswer, segments_max: int | None = None, level: Level = Level.FULL
    ) -> VerifyReport:
        """Check the block's accepted claims as far as `level` says.

        `segments_max` bounds the segments that are run again (None: all; a sample of `SAMPLE_SEGMENTS` on the level of
        samples). What cannot be had gives the verdict "undecided"; `Rejected(FULL)` where this disk is full.
        """
        if level is Level.CERTIFICATES:
            segments_max = 0
        elif level is Level.SAMPLE and segments_max is None:
            segments_max = SAMPLE_SEGMENTS
        accepted = [[claim for claim in closed.claims if claim.status == "accepted"] for closed in answer.report.closed]
        total = sum(int(claim.count) for claims in accepted for claim in claims)
        self._wanted = total if segments_max is None else min(total, segments_max)
        proved = [CERTIFIED]
        lie: Lie | None = None
        doubt: Rejected | None = None
        for closed, claims in zip(answer.report.closed, accepted, strict=True):
            if level is Level.CERTIFICATES:
                break
            try:
                await self._verify_round(closed, claims, self._wanted - self._replayed, level, proved)
            except Lie as found:
                lie = found
                break
            except Rejected as error:
                if error.reason is Reason.FULL:
                    raise
                doubt = error
                break
        done = Done(level, len(answer.report.closed), total, self._replayed, self._recomputed)
        trainer = self._trainers.get(lie.claim, AccountId(b"")) if lie else AccountId(b"")
        return make_report(answer.block.header, done, proved, lie, doubt, trainer)

    async def _verify_round(
        self, closed: ClosedRound, accepted: list[SettledClaim], segments_max: int, level: Level, proved: list[str]
    ) -> None:
        self._say(f"job {short(closed.job)} round {closed.round}: fetching the job")
        spec = await _fetch_spec(self._transport, closed)
        _verify_starts(closed, accepted)
        shares = share_out([int(claim.count) for claim in accepted], segments_max)
        for claim, count in zip(accepted, shares, strict=True):
            self._trainers[claim.claim] = claim.trainer
            await self._replay_claim(closed, spec, claim, count)
        if any(shares):
            proved.append(f"round {closed.round}: {sum(shares)} segments replay to the same bits")
        if level is not Level.FULL:
            return
        self._recomputed += 1  # of a void round there is nothing to recompute
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
            raise Lie(claim.claim, None, f"the claim's records do not fit it: {error}", None) from None
        return records

    async def _replay_claim(self, closed: ClosedRound, spec: JobSpec, claim: SettledClaim, count: int) -> None:
        """Replay `count` segments of a claim, drawn so that nobody can foresee which."""
        if count == 0:
            return
        self._say(f"round {closed.round}: replaying {count} of {claim.count} segments of {short(claim.trainer)}")
        records = await self._records(claim)
        for drawn in sorted(self._chance.sample(range(len(records)), count)):
            place = await supply_start(self._context, closed, spec, claim, records, drawn, self._patience_s)
            start = records[place - 1].state if place else claim.start
            item = ReplayItem(records[place].segment, start, records[place])
            replay = await self._replay(closed, spec, item)
            self._replayed += 1
            self._show(self._replayed, self._wanted)
            if not replay.is_same:
                self._say(f"segment {item.segment} is false; looking where")
                found = await find_difference(self._context, closed, spec, item, self._patience_s)
                came = short(replay.state)
                detail = f"segment {item.segment} replays to state {came}, the claim says {short(item.record.state)}"
                raise Lie(claim.claim, int(item.segment), detail, found)

    async def _replay(self, closed: ClosedRound, spec: JobSpec, item: ReplayItem) -> SegmentReplayed:
        context = self._context
        files = await fetch_job(context, spec)
        limit = await size_of_state(context, closed.state)
        try:
            files += await fetch_files(context, [item.start], limit, self._patience_s)
        except Rejected as error:
            if error.reason is not Reason.TOO_LARGE:
                raise
            return SegmentReplayed(item.segment, NO_DIGEST, NO_DIGEST, is_same=False)  # no state of the job is larger
        request = ReplaySegments(spec, files, closed.seed, Count(closed.round), (item,))
        result = as_result(SegmentsReplayed, await context.work(request, 0, _ignore))
        return result.results[0]

    async def _recompute(self, closed: ClosedRound, spec: JobSpec, accepted: list[SettledClaim]) -> None:
        self._say(f"round {closed.round}: computing the aggregate and its evaluation again")
        context = self._context
        withheld = tuple(refusal for refusal in closed.outcome.refused if refusal.reason == WITHHELD)
        absent = [refusal.trainer for refusal in withheld]
        steps = int(spec.terms.steps_per_segment)
        found = collect_finals((claim.trainer, claim.count * steps, claim.final_state) for claim in accepted)
        finals = tuple(final for final in found if final.trainer not in absent)
        files = await fetch_job(context, spec)
        limit = await size_of_state(context, closed.state)
        states = [closed.state, *(final.state for final in finals)]
        files += await fetch_files(context, states, limit, self._patience_s)
        number, place = Count(closed.round), str(context.folder)
        request = AggregateRound(spec, files, closed.state, number, finals, place, closed.seed)
        result = as_result(RoundAggregated, await context.work(request, 0, _ignore))
        if with_withheld(result.outcome, withheld) != closed.outcome:
            detail = f"round {closed.round}: the aggregate or its evaluation comes to other bits"
            raise Lie(ClaimId(b""), None, detail, None)


def _verify_starts(closed: ClosedRound, accepted: Sequence[SettledClaim]) -> None:
    """Raise `Lie` unless each claim starts from the round's state, or ends of an accepted one of the same trainer."""
    ends = {claim.claim: (claim.trainer, claim.final_state) for claim in accepted}
    for claim in accepted:
        before = (claim.trainer, closed.state) if claim.continues is None else ends.get(claim.continues)
        if before != (claim.trainer, claim.start):
            detail = f"the claim starts from state {short(claim.start)}, where nothing accepted before it ends"
            raise Lie(claim.claim, None, detail, None)


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
