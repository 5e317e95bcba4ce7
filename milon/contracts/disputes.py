"""A challenge and what comes of it: every validator's replay, or a dispute of two sides that every validator ends.

    any status but the last two --challenge--> SUSPENDED  every validator replays the segment
                                 '--FALSE, and the job is settled by bisection--> DISPUTED  moves, a clock per side

    power >= Q FALSE        REFUTED: slashed, barred; half burns, half is the challenger's
    power >= Q UNAVAILABLE  VOID: a smaller share is taken the same way; only once the trainer had its time to show it
    power >= Q TRUE         back to where it was; FALSE costs the challenger what the lie would have cost the trainer,
                            UNAVAILABLE the challenge bond where it is no member of the committee
    no quorum in time       VOID, nobody is paid and nobody loses stake
    the trainer is silent   VOID, nobody is paid; the stake stays
    the challenger is       back to where it was; the challenge bond is forfeited, half burns, half is the trainer's

One challenge is settled after the other, each account has one a claim, and none bars another's: only a segment that a
quorum has replayed whole is not challenged again. A member whose UNAVAILABLE came to nothing still owes its replay, and
may challenge what it finds false in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.chain.certificate import compute_quorum
from milon.chain.learning import Payment
from milon.chain.transaction import AnswerDispute, Challenge, ChooseDispute, Judge
from milon.contracts.accounts import load_account, load_validators, shift_open_claims
from milon.contracts.claims import (
    add_payments,
    burn_lapsed,
    load_claim,
    resume,
    store_claim,
    terms_of,
    void_unpaid,
)
from milon.contracts.claims_records import (
    CHALLENGED,
    Accusation,
    Attestation,
    ClaimRecord,
    ClaimStatus,
    Judgement,
    dispute_key,
)
from milon.contracts.clock import Moment
from milon.contracts.jobs import load_job
from milon.contracts.records import OpenRound, Phase, job_key, open_round_key, outcome_key, power_of
from milon.contracts.staking import split_taken, take_bond, take_stake
from milon.pol.dispute import Answer, Choice, Game, Turn, advance, is_opening, open_game
from milon.pol.terms import JobTerms, Settlement
from milon.pol.verdict import Verdict
from milon.state.ledger import Draft, Ledger

STRANGERS_MAX = 32  # challenges of one claim by who is not in its committee; each costs a replay by everybody


def load_game(ledger: Ledger | Draft, record: ClaimRecord) -> Game:
    """The dispute over a claim that is DISPUTED."""
    game = ledger.load(dispute_key(record.claim), Game)
    if game is None:
        raise RuntimeError("a disputed claim without its dispute")
    return game


def apply_challenge(draft: Draft, sender: AccountId, action: Challenge, moment: Moment) -> None:
    """Take in an accusation; it suspends the claim at once, or waits for the one before it."""
    record = load_claim(draft, action.claim)
    terms = terms_of(draft, record)
    _verify_challenge(draft, record, sender, action, terms, moment)
    accusation = Accusation(sender, action.segment, action.verdict, is_over=False)
    record = replace(record, accusations=(*record.accusations, accusation))
    shift_open_claims(draft, sender, 1)
    if record.status not in CHALLENGED:
        record = _settle_next(draft, record, terms, moment)
        _open_round_again(draft, record, moment)
    store_claim(draft, record)


def _verify_challenge(
    draft: Draft, record: ClaimRecord, sender: AccountId, action: Challenge, terms: JobTerms, moment: Moment
) -> None:
    is_open = record.status not in (ClaimStatus.REFUTED, ClaimStatus.VOID)
    require(is_open, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(action.verdict is not Verdict.TRUE, Reason.OUT_OF_RANGE, "a challenge says false or unavailable")
    is_there = record.first <= action.segment < record.first + record.count
    require(is_there, Reason.OUT_OF_RANGE, f"segment {action.segment} is not in this claim")
    require(sender != record.trainer, Reason.NOT_ALLOWED, "nobody challenges an own claim")
    earlier = [entry for entry in record.accusations if entry.challenger == sender]
    may_again = action.verdict is Verdict.FALSE and _has_waited(record, earlier)
    require(not earlier or may_again, Reason.DUPLICATE, "this account has challenged the claim")
    is_replayed = _is_replayed(record, action.segment, terms)
    require(not is_replayed, Reason.STALE, f"a quorum has replayed segment {action.segment}")
    if sender not in record.committee:
        bond = max(terms.bond_min, moment.parameters.challenge_bond)
        bonded = load_account(draft, sender).bonded
        require(bonded >= bond, Reason.NOT_ALLOWED, f"a bond of {bond} is needed, {bonded} are bonded")
        strangers = sum(entry.challenger not in record.committee for entry in record.accusations)
        require(strangers < STRANGERS_MAX, Reason.FULL, f"{STRANGERS_MAX} others have challenged this claim")


def _has_waited(record: ClaimRecord, earlier: Sequence[Accusation]) -> bool:
    """Whether these are the challenges of a member who missed states, and has them by now."""
    is_late = all(entry.is_over and entry.verdict is Verdict.UNAVAILABLE for entry in earlier)
    return is_late and all(entry.challenger in record.committee for entry in earlier)


def _is_replayed(record: ClaimRecord, segment: Count, terms: JobTerms) -> bool:
    """Whether a quorum has replayed the whole segment; a dispute that came to nothing shows one piece of it alone."""
    is_over = any(entry.is_over and entry.segment == segment for entry in record.accusations)
    return is_over and terms.settlement is Settlement.REPLAY


def _settle_next(draft: Draft, record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    """Begin with the next accusation, or go back to where the first one found the claim."""
    record = replace(record, judgements=())
    while record.dispute < len(record.accusations) and _is_replayed(record, record.accusation.segment, terms):
        record = _overrule(draft, record, moment)  # it waited while a quorum replayed its segment
    if record.dispute == len(record.accusations):
        return resume(record, terms, moment)
    if terms.settlement is Settlement.REPLAY or record.accusation.verdict is Verdict.UNAVAILABLE:
        judge_blocks = int(terms.judge_blocks)
        return replace(
            record,
            status=ClaimStatus.SUSPENDED,
            deadline=Count(moment.tick + judge_blocks),
            withheld_from=Count(moment.tick + judge_blocks // 2),
        )
    draft.store(dispute_key(record.claim), open_game(int(terms.steps_per_segment)))
    return replace(record, status=ClaimStatus.DISPUTED, deadline=Count(moment.tick + terms.dispute_blocks))


def _end_accusation(record: ClaimRecord) -> ClaimRecord:
    accusations = list(record.accusations)
    accusations[record.dispute] = replace(record.accusation, is_over=True)
    return replace(record, accusations=tuple(accusations))


def _open_round_again(draft: Draft, record: ClaimRecord, moment: Moment) -> None:
    """Where validators vote on the round already, they begin anew when the challenge is settled."""
    opened = draft.load(open_round_key(record.job), OpenRound)
    if opened is None or opened.phase is not Phase.AGGREGATE:
        return
    for vote in opened.votes:
        draft.remove(outcome_key(record.job, vote.outcome))
    draft.store(open_round_key(record.job), replace(opened, phase=Phase.TRAIN, votes=(), deadline=moment.tick))


def apply_judge(draft: Draft, sender: AccountId, action: Judge, moment: Moment) -> None:
    """Take in a validator's word on the challenged segment; power >= Q for one verdict decides."""
    record = load_claim(draft, action.claim)
    is_ripe = record.status is ClaimStatus.SUSPENDED or _is_with_referees(draft, record)
    require(is_ripe, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(action.dispute == record.dispute, Reason.DIFFERS, f"challenge {record.dispute} is being settled")
    validators = load_validators(draft)
    require(power_of(validators, sender) > 0, Reason.NOT_ALLOWED, "only validators judge")
    spoken = any(entry.validator == sender for entry in record.judgements)
    require(not spoken, Reason.DUPLICATE, "this validator has judged")
    is_early = action.verdict is Verdict.UNAVAILABLE and record.withheld_from > 0
    require(not is_early, Reason.NOT_NOW, "there is still time to make the states available")
    record = replace(record, judgements=(*record.judgements, Judgement(sender, action.verdict)))
    store_claim(draft, _weigh_judgements(draft, record, moment))


def _is_with_referees(draft: Draft, record: ClaimRecord) -> bool:
    return record.status is ClaimStatus.DISPUTED and load_game(draft, record).turn is Turn.REFEREES


def _weigh_judgements(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """Decide where a quorum of the present validators agrees: no two verdicts can have one."""
    validators = load_validators(draft)
    powers: dict[Verdict, int] = {}
    for entry in record.judgements:
        powers[entry.verdict] = powers.get(entry.verdict, 0) + power_of(validators, entry.validator)
    quorum = compute_quorum(sum(entry.power for entry in validators.validators))
    decided = [verdict for verdict, power in powers.items() if power >= quorum]
    return _decide(draft, record, decided[0], moment) if decided else record


def _decide(draft: Draft, record: ClaimRecord, verdict: Verdict, moment: Moment) -> ClaimRecord:
    accusation = record.accusation
    if verdict is Verdict.FALSE:
        taken = take_stake(draft, record.trainer, int(moment.parameters.slash_ppm))
        _punish(draft, record, record.trainer, accusation.challenger, taken)
        _bar(draft, record)
        return _refute(draft, record, moment)
    draft.remove(dispute_key(record.claim))
    if verdict is Verdict.UNAVAILABLE:
        taken = take_stake(draft, record.trainer, int(moment.parameters.withhold_ppm))
        _punish(draft, record, record.trainer, accusation.challenger, taken, "withholding")
        return void_unpaid(record, f"the states of segment {accusation.segment} were not to be had")
    return _settle_next(draft, _overrule(draft, record, moment), terms_of(draft, record), moment)


def _overrule(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """End an accusation that a quorum found untrue; having said FALSE costs as much as the lie would have."""
    accusation = record.accusation
    if accusation.verdict is Verdict.FALSE:
        taken = take_stake(draft, accusation.challenger, int(moment.parameters.slash_ppm))
        _punish(draft, record, accusation.challenger, record.trainer, taken)
    elif accusation.challenger not in record.committee:
        _forfeit(draft, record, moment)  # a member says what it met on duty; a stranger had better be sure
    return _end_accusation(record)


def _forfeit(draft: Draft, record: ClaimRecord, moment: Moment) -> None:
    challenger = record.accusation.challenger
    taken = take_bond(draft, challenger, int(moment.parameters.challenge_bond))
    _punish(draft, record, challenger, record.trainer, taken, "forfeit")


def _refute(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """Refuted; members that had to replay the false segment and called their sample true are struck out, and lapsed."""
    draft.remove(dispute_key(record.claim))
    place = record.accusation.segment - record.first
    blind = [entry for entry in record.attestations if place in entry.sample]
    burn_lapsed(draft, record, [entry.verifier for entry in blind], moment)

    def strike(entry: Attestation) -> Attestation:
        return replace(entry, is_counted=entry.is_counted and entry not in blind)

    problem = f"segment {record.accusation.segment} replays to other bits"
    struck = tuple(strike(entry) for entry in record.attestations)
    return replace(record, status=ClaimStatus.REFUTED, problem=problem, attestations=struck)


def _punish(
    draft: Draft, record: ClaimRecord, loser: AccountId, winner: AccountId, taken: int, reason: str = "slash"
) -> None:
    """Burn half of what was taken, give the winner the other half, and note both."""
    reward = split_taken(draft, taken, winner)
    payments = (Payment(loser, Amount(taken), reason), Payment(winner, Amount(reward), "refutation"))
    add_payments(draft, record.job, payments)


def _bar(draft: Draft, record: ClaimRecord) -> None:
    job = load_job(draft, record.job)
    trainers = tuple(
        replace(entry, is_active=entry.is_active and entry.account != record.trainer) for entry in job.trainers
    )
    barred = tuple(sorted({*job.barred, record.trainer}))
    draft.store(job_key(record.job), replace(job, trainers=trainers, barred=barred))


def apply_answer_dispute(draft: Draft, sender: AccountId, action: AnswerDispute, moment: Moment) -> None:
    """The trainer's move; what only opens what was shown before may come from anybody."""
    record = load_claim(draft, action.claim)
    game = _load_turn(draft, record, action)
    is_side = sender == record.trainer or is_opening(game)
    require(is_side, Reason.NOT_ALLOWED, "only the trainer says here what its run gives")
    _move(draft, record, game, action.answer, moment)


def apply_choose_dispute(draft: Draft, sender: AccountId, action: ChooseDispute, moment: Moment) -> None:
    """The challenger's move."""
    record = load_claim(draft, action.claim)
    game = _load_turn(draft, record, action)
    require(sender == record.accusation.challenger, Reason.NOT_ALLOWED, "only the challenger chooses")
    _move(draft, record, game, action.choice, moment)


def _load_turn(draft: Draft, record: ClaimRecord, action: AnswerDispute | ChooseDispute) -> Game:
    require(record.status is ClaimStatus.DISPUTED, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(action.dispute == record.dispute, Reason.DIFFERS, f"challenge {record.dispute} is being settled")
    game = load_game(draft, record)
    require(action.move == game.moves, Reason.STALE, f"move {game.moves} is next")
    return game


def _move(draft: Draft, record: ClaimRecord, game: Game, move: Answer | Choice, moment: Moment) -> None:
    terms = terms_of(draft, record)
    game = advance(game, move)
    draft.store(dispute_key(record.claim), game)
    blocks = int(terms.judge_blocks if game.turn is Turn.REFEREES else terms.dispute_blocks)
    withheld_from = Count(moment.tick + blocks // 2)
    store_claim(draft, replace(record, deadline=Count(moment.tick + blocks), withheld_from=withheld_from))


def advance_challenged(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """What time alone does to a challenged claim: weigh judgements by another set's power, and end the waiting."""
    if record.status not in CHALLENGED:
        return record
    is_late = moment.tick >= record.withheld_from
    advanced = replace(record, withheld_from=Count(0)) if is_late else record
    if moment.is_first_of_epoch and record.judgements:
        advanced = _weigh_judgements(draft, advanced, moment)
    if advanced.dispute == record.dispute and advanced.status is record.status and moment.tick >= record.deadline:
        advanced = _end_waiting(draft, advanced, moment)
    if advanced != record:
        store_claim(draft, advanced)
    return advanced


def _end_waiting(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    segment = record.accusation.segment
    turn = Turn.REFEREES if record.status is ClaimStatus.SUSPENDED else load_game(draft, record).turn
    draft.remove(dispute_key(record.claim))
    if turn is Turn.REFEREES:
        return void_unpaid(record, f"no quorum judged segment {segment} in time")
    if turn is Turn.TRAINER:
        return void_unpaid(record, f"the trainer gave no answer on segment {segment} in time")
    _forfeit(draft, record, moment)
    return _settle_next(draft, _end_accusation(record), terms_of(draft, record), moment)
