"""Players who live a job by their duties, honest or not, on a chain in a loop.

Training is fake and self-consistent: a segment's next state is a digest of the state before it, the round's seed and
its number, so that replaying means computing that digest again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from milon.base.codec import encode
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, JobId, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.learning import ClosedRound
from milon.chain.transaction import (
    Action,
    AggregateVote,
    AnswerDispute,
    Attest,
    Challenge,
    ChooseDispute,
    Claim,
    CommitAttestation,
    Enrol,
    HoldJob,
    Judge,
    OpenTraces,
)
from milon.contracts.apply import Applied
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.duties import (
    AggregateDuty,
    CommitDuty,
    DisputeAnswerDuty,
    DisputeChooseDuty,
    Duty,
    EnrolDuty,
    HoldDuty,
    JudgeDuty,
    OpenDuty,
    RefereeDuty,
    RevealDuty,
    Role,
    TrainDuty,
    WatchDuty,
    compute_duties,
)
from milon.contracts.records import Job, JobStatus, OpenRound, Phase, open_round_key
from milon.pol.attestation import AttestationContent, commit_attestation
from milon.pol.claim import SegmentRecord, commit_trace, compute_records_root, key_traces
from milon.pol.dispute import spot_of
from milon.pol.sampling import draw_sample
from milon.pol.terms import audit_ppm_of
from milon.pol.verdict import RoundOutcome, Verdict
from tests.contracts.helpers import Chain, make_spec, name_of
from tests.pol.dispute_toy import Run, judge


def compute_state(start: Digest, seed: Digest, segment: int) -> Digest:
    """What training a segment from `start` gives."""
    return digest("test-state", start, seed, segment.to_bytes(8, "big"))


def compute_secret_trace(state: Digest) -> Digest:
    """The trace of the segment that ends in `state`."""
    return digest("test-trace", state)


def train(start: Digest, seed: Digest, first: int, count: int, lies: frozenset[int]) -> tuple[SegmentRecord, ...]:
    """Records of consecutive segments; those in `lies` (numbers in the round) end in another state."""
    records, state = [], start
    for segment in range(first, first + count):
        state = compute_state(state, seed, segment)
        if segment in lies:
            state = digest("test-lie", state)
        records.append(SegmentRecord(Count(segment), state, commit_trace(compute_secret_trace(state)), Count(0)))
    return tuple(records)


@dataclass
class Player:
    """A node's behaviour; honest as it stands."""

    key: SecretKey  # its own
    is_trainer: bool = True  # enrols and trains
    is_here: bool = True  # does anything at all
    lies: frozenset[int] = frozenset()  # segments it trains wrongly
    capacity: int = 10  # that it names
    claims: int | None = None  # segments it claims; None: all
    skips: tuple[type, ...] = ()  # duties it does not do
    is_withholding: bool = False  # gives its records to nobody
    is_lazy: bool = False  # attests TRUE without replaying
    attests: Verdict | None = None  # says this of every sample's first segment, the first time that it is asked
    judges: Verdict | None = None  # says this of every disputed segment
    run: Run = field(default_factory=lambda: HONEST)  # its side of a dispute over any segment
    changes: Callable[[RoundOutcome], RoundOutcome] = field(default=lambda outcome: outcome)  # to the true outcome
    is_watcher: bool = False  # replays every segment of claims that are no business of its own

    @property
    def role(self) -> Role:
        """As what it asks for duties."""
        return Role(self.key.account, self.is_trainer, int(self.is_watcher))


HONEST = Run(3)  # what every segment comes to where it is settled by bisection


class World:
    """Players on a chain and what they publish beside it."""

    def __init__(self, chain: Chain, players: Sequence[Player]) -> None:
        self.chain = chain
        self.players = {player.key.account: player for player in players}
        self.blobs: dict[Digest, tuple[SegmentRecord, ...]] = {}
        self.refusals: list[str] = []
        self.opened: dict[tuple[AccountId, ClaimId], Attest] = {}

    def step(self) -> Applied:
        """Everybody does all duties the ledger asks for, in one block."""
        asked: list[tuple[SecretKey, Action]] = []
        for player in self.players.values():
            duties = compute_duties(self.chain.ledger, player.role)
            todo = [duty for duty in duties if player.is_here and not isinstance(duty, player.skips)]
            made = [self.perform(player, duty) for duty in todo]
            asked += [(player.key, action) for action in made if action is not None]
        signed, ahead = [], dict.fromkeys(self.players, 0)
        for key, action in asked:
            signed.append(self.chain.sign(key, action, ahead[key.account]))
            ahead[key.account] += 1
        applied = self.chain.apply(*signed)
        self.refusals += [receipt.problem for receipt in applied.receipts if receipt.problem]
        return applied

    def run(self, job: JobId, is_done: Callable[[Job], bool], blocks_max: int = 200) -> None:
        """Blocks until the job is there."""
        for _ in range(blocks_max):
            if is_done(self.chain.job(job)):
                return
            self.step()
        raise AssertionError(f"not there after {blocks_max} blocks: {self.chain.job(job)}")

    def finish(self, job: JobId) -> list[ClosedRound]:
        """Blocks until the job is over; its closed rounds."""
        self.run(job, lambda record: record.status in (JobStatus.FINISHED, JobStatus.REJECTED))
        return [closed for closed in self.chain.closed if closed.job == job]

    def perform(self, player: Player, duty: Duty) -> Action | None:
        """The action that does the duty; none where it must wait."""
        match duty:
            case HoldDuty():
                return HoldJob(duty.job, "")
            case EnrolDuty():
                return Enrol(duty.job, Count(player.capacity))
            case TrainDuty():
                return self._train(player, duty)
            case CommitDuty():
                return self._commit(player, duty)
            case WatchDuty():
                return self._watch(duty)
            case RevealDuty():
                return self.opened[player.key.account, duty.claim.claim]
            case OpenDuty():
                records = self.blobs[load_claim(self.chain.ledger, duty.claim).records]
                return OpenTraces(duty.claim, records, tuple(compute_secret_trace(entry.state) for entry in records))
            case JudgeDuty():
                return self._judge(player, duty)
            case DisputeAnswerDuty():
                answer = player.run.answer(spot_of(duty.game))
                return AnswerDispute(duty.claim.claim, Count(duty.claim.dispute), duty.game.moves, answer)
            case DisputeChooseDuty():
                assert duty.game.shown is not None
                choice = player.run.choose(spot_of(duty.game), duty.game.shown)
                return ChooseDispute(duty.claim.claim, Count(duty.claim.dispute), duty.game.moves, choice)
            case RefereeDuty():
                run = self.players[duty.claim.trainer].run
                is_true = judge(HONEST, run.state_root(run.steps), duty.game)
                verdict = player.judges or (Verdict.TRUE if is_true else Verdict.FALSE)
                return Judge(duty.claim.claim, Count(duty.claim.dispute), verdict)
            case AggregateDuty():
                return AggregateVote(duty.job, duty.round, player.changes(compute_outcome(duty)))

    def _train(self, player: Player, duty: TrainDuty) -> Claim:
        count = duty.assignment.count if player.claims is None else min(player.claims, int(duty.assignment.count))
        records = train(duty.state, duty.seed, duty.assignment.first, count, player.lies)
        blob = digest("test-records", *(encode(record) for record in records))
        self.blobs[blob] = records
        root = compute_records_root(records)
        first = duty.assignment.first
        return Claim(duty.job, duty.round, first, Count(count), root, blob, records[-1].state, Count(5))

    def _replay(self, claim: ClaimRecord, seed: Digest, place: int) -> Verdict:
        if self.players[claim.trainer].is_withholding:
            return Verdict.UNAVAILABLE
        records = self.blobs[claim.records]
        before = records[place - 1].state if place else claim.start
        is_same = compute_state(before, seed, records[place].segment) == records[place].state
        return Verdict.TRUE if is_same else Verdict.FALSE

    def _watch(self, duty: WatchDuty) -> Challenge | None:
        claim = duty.claim
        for place in range(claim.count):
            found = self._replay(claim, duty.seed, place)
            if found is not Verdict.TRUE:
                return Challenge(claim.claim, Count(claim.first + place), found)
        return None

    def _judge(self, player: Player, duty: JudgeDuty) -> Judge | None:
        claim = duty.claim
        found = self._replay(claim, duty.seed, int(claim.accusation.segment - claim.first))
        verdict = player.judges or found
        if verdict is Verdict.UNAVAILABLE and not duty.may_be_withheld:
            return None
        return Judge(claim.claim, Count(claim.dispute), verdict)

    def _commit(self, player: Player, duty: CommitDuty) -> CommitAttestation | Challenge:
        claim = duty.claim
        assert claim.beacon is not None
        ppm = audit_ppm_of(duty.spec.terms, claim.round)
        proof, places = draw_sample(player.key, claim.claim, claim.beacon, claim.count, ppm)
        is_again = any(entry.challenger == player.key.account for entry in claim.accusations)
        word = None if is_again else player.attests
        if word not in (None, Verdict.TRUE):
            return Challenge(claim.claim, Count(claim.first + (*places, 0)[0]), word)
        keyed = name_of("lazy")
        for place in places if not player.is_lazy else ():
            found = self._replay(claim, duty.seed, place)
            if found is not Verdict.TRUE and word is None:
                return Challenge(claim.claim, Count(claim.first + place), found)
        if not player.is_lazy:
            traces = [compute_secret_trace(self.blobs[claim.records][place].state) for place in places]
            keyed = key_traces(player.key.account, traces)
        action, commitment = make_attestation(player.key.account, claim, proof, keyed)
        self.opened[player.key.account, claim.claim] = action
        return commitment


def make_attestation(
    member: AccountId, claim: ClaimRecord, proof: VrfProof, keyed: Digest
) -> tuple[Attest, CommitAttestation]:
    """An attestation, and the commitment that comes before it."""
    salt = digest("test-salt", member, claim.claim)
    commitment = commit_attestation(member, AttestationContent(claim.claim, proof, keyed), salt)
    return Attest(claim.claim, proof, keyed, salt), CommitAttestation(claim.claim, commitment)


def compute_outcome(duty: AggregateDuty) -> RoundOutcome:
    """What honest validators find: everybody is taken in."""
    finals = (final.state for final in duty.finals)
    accepted = tuple(final.trainer for final in duty.finals)
    return RoundOutcome(digest("test-aggregate", duty.state, *finals), Count(1), Count(15), Count(16), accepted, (), "")


def make_world(count: int = 4, **behaviour: dict[str, object]) -> World:
    """A chain of `count` validators who all play; `behaviour` changes player `p0`, `p1` and so on."""
    chain = Chain(count)
    players = [Player(key, **behaviour.get(f"p{index}", {})) for index, key in enumerate(chain.keys)]  # type: ignore[arg-type]
    return World(chain, players)


def start_job(world: World, **terms: object) -> JobId:
    """A job submitted by the first account that is no validator."""
    return world.chain.submit(world.chain.others[0], make_spec(**terms))


def until(world: World, is_there: Callable[[], bool], blocks_max: int = 60) -> None:
    """Blocks until `is_there`."""
    for _ in range(blocks_max):
        if is_there():
            return
        world.step()
    raise AssertionError(f"not there after {blocks_max} blocks")


def reach_claims(world: World, job: JobId, status: ClaimStatus, count: int = 4) -> tuple[ClaimRecord, ...]:
    """Blocks until `count` claims of the open round have that status; all of the round's claims."""

    def claims() -> tuple[ClaimRecord, ...]:
        opened = world.chain.ledger.load(open_round_key(job), OpenRound)
        return tuple(load_claim(world.chain.ledger, claim) for claim in opened.claims) if opened else ()

    until(world, lambda: sum(claim.status is status for claim in claims()) >= count)
    return claims()


def reach_phase(world: World, job: JobId, phase: Phase, blocks_max: int = 60) -> OpenRound:
    """Blocks until the open round is in that phase."""

    def opened() -> OpenRound | None:
        return world.chain.ledger.load(open_round_key(job), OpenRound)

    until(world, lambda: (found := opened()) is not None and found.phase is phase, blocks_max)
    return world.chain.round(job)


def player_of(world: World, number: int) -> Player:
    """The player of that number."""
    return world.players[world.chain.keys[number].account]


def lapses(world: World) -> dict[AccountId, int]:
    """What each account has lost by lapses so far."""
    return {
        payment.account: int(payment.amount)
        for closed in world.chain.closed
        for payment in closed.payments
        if payment.reason == "lapse"
    }
