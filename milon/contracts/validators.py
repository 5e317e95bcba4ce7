"""Who votes: candidates, the set of each epoch, absence and jail, and what learning earns of the leadership."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Count, Epoch, Height, Power
from milon.chain.certificate import Validator, compute_quorum
from milon.chain.params import EPOCH_NEVER_ENDS, Parameters
from milon.chain.transaction import Stand
from milon.contracts.accounts import load_account, load_validators
from milon.contracts.power import cap_powers
from milon.contracts.records import (
    CANDIDATES_KEY,
    VALIDATORS_KEY,
    Candidates,
    ValidatorRecord,
    ValidatorSet,
    past_validators_key,
    power_of,
    validator_key,
)
from milon.pol.terms import PARTS_PER_MILLION
from milon.state.ledger import Draft, Ledger, Reader, load_record

CANDIDATES_MAX = 1_024  # what the end of an epoch looks at: 2,048 records
CANDIDATES_KEPT_MAX = 768  # after an epoch's end, by stake: newcomers always find places


def load_validator(ledger: Ledger | Draft, account: AccountId) -> ValidatorRecord:
    """What stands behind the account as a validator; one that never stood has nothing."""
    return ledger.load(validator_key(account), ValidatorRecord) or ValidatorRecord()


def store_validator(draft: Draft, account: AccountId, record: ValidatorRecord) -> None:
    """Write what stands behind the account."""
    draft.store(validator_key(account), record)


def load_candidates(ledger: Ledger | Draft) -> tuple[AccountId, ...]:
    """Among whom the next set is chosen, in order; some may have retired."""
    found = ledger.load(CANDIDATES_KEY, Candidates)
    return found.accounts if found else ()


def load_validators_at(reader: Reader, epoch: Epoch) -> tuple[Validator, ...]:
    """The validator set of an epoch, in order of account.

    The ledger knows the epoch of its next block and, while evidence may still come, those before: `Rejected(UNKNOWN)`
    for others.
    """
    current = load_record(reader, VALIDATORS_KEY, ValidatorSet)
    if current is not None and current.epoch == epoch:
        return current.validators
    past = load_record(reader, past_validators_key(epoch), ValidatorSet)
    if past is None:
        raise Rejected(Reason.UNKNOWN, f"the ledger holds no validators of epoch {epoch}")
    return past.validators


def compute_release_height(draft: Draft, validator: AccountId, height: Height, parameters: Parameters) -> Height:
    """When stake behind `validator` that asks to leave now is free.

    What votes in this epoch may be accused of it for `evidence_age_blocks` after the epoch's end, so its waiting time,
    which is longer, starts there.
    """
    start = int(height)
    if parameters.epoch_blocks < EPOCH_NEVER_ENDS and power_of(load_validators(draft), validator) > 0:
        start = -(-start // parameters.epoch_blocks) * parameters.epoch_blocks
    return Height(start + parameters.unbond_blocks)


def apply_stand(draft: Draft, sender: AccountId, action: Stand, parameters: Parameters) -> None:
    """Make the sender a candidate, or change its commission: down at any time, up while nobody delegates to it."""
    record = load_validator(draft, sender)
    require(not record.is_tombstoned, Reason.NOT_ALLOWED, "who offended against the rules of voting never votes again")
    commission = action.commission_ppm
    require(commission <= PARTS_PER_MILLION, Reason.OUT_OF_RANGE, "a commission of more than everything")
    is_new = not record.is_candidate or commission != record.commission_ppm
    require(is_new, Reason.DUPLICATE, "a candidate with this commission already")
    is_agreed = commission <= record.commission_ppm or record.shares == 0
    require(is_agreed, Reason.NOT_ALLOWED, "a commission does not rise while others delegate")
    bonded, least = load_account(draft, sender).bonded, parameters.validator_bond_min
    require(bonded >= least, Reason.NOT_ALLOWED, f"a validator bonds {least}; {bonded} are bonded")
    accounts = load_candidates(draft)
    if sender not in accounts:
        require(len(accounts) < CANDIDATES_MAX, Reason.FULL, f"{CANDIDATES_MAX} candidates; try in the next epoch")
        draft.store(CANDIDATES_KEY, Candidates(tuple(sorted((*accounts, sender)))))
    store_validator(draft, sender, replace(record, is_candidate=True, commission_ppm=commission))


def apply_retire(draft: Draft, sender: AccountId) -> None:
    """Take the sender out of the choice of the next set; what it earned of the leadership is gone."""
    record = load_validator(draft, sender)
    require(record.is_candidate, Reason.NOT_NOW, "not a candidate")
    store_validator(draft, sender, replace(record, is_candidate=False, learning=Amount(0)))


def apply_unjail(draft: Draft, sender: AccountId, height: Height) -> None:
    """Let the sender be chosen again, once its time is over."""
    record = load_validator(draft, sender)
    require(record.jailed_until > 0, Reason.NOT_NOW, "not in jail")
    require(height >= record.jailed_until, Reason.NOT_NOW, f"in jail until height {record.jailed_until}")
    store_validator(draft, sender, replace(record, jailed_until=Height(0)))


def credit_learning(draft: Draft, trainer: AccountId, fee: int) -> None:
    """Count a burned protocol fee as learning of the trainer, where it stands for validator."""
    record = load_validator(draft, trainer)
    if record.is_candidate and fee:
        store_validator(draft, trainer, replace(record, learning=Amount(record.learning + fee)))


def count_turns(draft: Draft, proposer: AccountId, missed: Sequence[AccountId], parameters: Parameters) -> None:
    """Note who led and who should have since the parent's view; where sets never change, nobody asks."""
    if parameters.epoch_blocks >= EPOCH_NEVER_ENDS:
        return
    misses = Counter(missed)
    for account in sorted({proposer, *misses}):
        record = load_validator(draft, account)
        led = Count(record.led + (account == proposer))
        store_validator(draft, account, replace(record, led=led, missed=Count(record.missed + misses[account])))


def _jail_absent(draft: Draft, members: Sequence[Validator], height: Height, parameters: Parameters) -> None:
    """Jail who missed too much of its turns, the worst first, and of one epoch's power less than a third.

    Whoever can delay messages makes honest leaders miss: that must not hand a majority to others within an epoch.
    """
    absent: list[tuple[int, AccountId, Power]] = []
    for member in members:
        record = load_validator(draft, member.account)
        turns = record.led + record.missed
        missed_ppm = record.missed * PARTS_PER_MILLION // max(1, turns)
        if turns >= parameters.jail_turns_min and missed_ppm > parameters.jail_missed_ppm:
            absent.append((-missed_ppm, member.account, member.power))
    total = sum(member.power for member in members)
    spare = total - compute_quorum(total)
    for _, account, power in sorted(absent):
        if power > spare:
            continue
        spare -= power
        until = Height(height + max(1, parameters.jail_blocks))
        store_validator(draft, account, replace(load_validator(draft, account), jailed_until=until))


def compute_next_validators(ledger: Ledger | Draft, parameters: Parameters) -> tuple[Validator, ...]:
    """The set of the next epoch, in order of account: the candidates with most stake, capped; never empty.

    Stake is a candidate's own and what is delegated to it; of equals the smaller account. Where no candidate can be
    chosen, the present set stays: a chain without validators would be over.
    """
    stakes: list[tuple[int, AccountId, int]] = []
    for account in load_candidates(ledger):
        record, bonded = load_validator(ledger, account), load_account(ledger, account).bonded
        stake = bonded + record.delegated
        is_free = record.is_candidate and not record.is_tombstoned and not record.jailed_until
        if is_free and bonded >= parameters.validator_bond_min and stake > 0:
            stakes.append((-stake, account, int(record.learning)))
    chosen = sorted(stakes)[: parameters.validators_max]
    if not chosen:
        return load_validators(ledger).validators
    powers = cap_powers([-stake for stake, _, _ in chosen], parameters.power_cap_ppm)
    members = (
        Validator(account, Power(power), Count(learning))
        for (_, account, learning), power in zip(chosen, powers, strict=True)
    )
    return tuple(sorted(members, key=lambda member: member.account))


def end_epoch(draft: Draft, epoch: Epoch, height: Height, parameters: Parameters) -> tuple[Validator, ...]:
    """Jail, choose the next set and start its counts; the set. `height` is the epoch's last block's."""
    current = load_validators(draft)
    _jail_absent(draft, current.validators, height, parameters)
    chosen = compute_next_validators(draft, parameters)
    draft.store(past_validators_key(epoch), ValidatorSet(current.validators, epoch))
    draft.store(VALIDATORS_KEY, ValidatorSet(chosen, Epoch(epoch + 1)))
    forgotten = (height - parameters.evidence_age_blocks) // parameters.epoch_blocks - 1
    if forgotten >= 0:
        draft.remove(past_validators_key(forgotten))
    _start_counts(draft, current.validators, chosen, parameters)
    return chosen


def _start_counts(
    draft: Draft, before: Sequence[Validator], after: Sequence[Validator], parameters: Parameters
) -> None:
    """Halve learning, forget turns, and keep the candidates who can be chosen: members, then by stake."""
    members = {member.account for member in after}
    ranks: list[tuple[bool, int, AccountId]] = []
    candidates = load_candidates(draft)
    for account in sorted({*candidates, *(member.account for member in before)}):
        record, bonded = load_validator(draft, account), load_account(draft, account).bonded
        is_candidate = record.is_candidate and bonded >= parameters.validator_bond_min
        if is_candidate:
            ranks.append((account not in members, -bonded - record.delegated, account))
        halved = Amount(record.learning // 2 if is_candidate else 0)
        begun = replace(record, is_candidate=is_candidate, learning=halved, led=Count(0), missed=Count(0))
        if begun != record:
            store_validator(draft, account, begun)
    kept = sorted(ranks)[:CANDIDATES_KEPT_MAX]
    for _, _, account in sorted(ranks)[CANDIDATES_KEPT_MAX:]:
        retired = replace(load_validator(draft, account), is_candidate=False, learning=Amount(0))
        store_validator(draft, account, retired)
    draft.store(CANDIDATES_KEY, Candidates(tuple(sorted(account for _, _, account in kept))))
