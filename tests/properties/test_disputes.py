"""Whatever one side of a dispute does on the chain: the other loses no stake, coins are conserved, and it ends."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.chain.transaction import Action, AnswerDispute, Bond, Challenge, ChooseDispute
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import Duty
from milon.pol.dispute import MOVES_MAX
from milon.pol.terms import Settlement
from milon.pol.verdict import Verdict
from tests.contracts.helpers import Chain
from tests.contracts.players import HONEST, Player, World, reach_claims, start_job
from tests.pol.dispute_toy import Run, bend_answer, random_choice

LIE = Run(HONEST.steps, tamper={(1, 5, 70): 3})
BLOCKS = 4  # of a clock


class Crooked(World):
    """A world in which one account's moves are bent, left out, or anything at all."""

    def __init__(self, chain: Chain, players: list[Player], crook: AccountId, chance: random.Random) -> None:
        super().__init__(chain, players)
        self.crook = crook
        self.chance = chance

    def perform(self, player: Player, duty: Duty) -> Action | None:
        action = super().perform(player, duty)
        if player.key.account != self.crook or self.chance.random() < 0.6:
            return action
        if isinstance(action, AnswerDispute):
            return replace(action, answer=bend_answer(action.answer, self.chance))
        if isinstance(action, ChooseDispute):
            return replace(action, choice=random_choice(self.chance))
        return action


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 32), is_trainer_crooked=st.booleans(), lies=st.booleans())
def test_no_side_of_a_dispute_can_hurt_an_honest_other(seed: int, is_trainer_crooked: bool, lies: bool) -> None:
    chain = Chain(4, 2)
    watcher, trainer = chain.others[1], chain.keys[0]
    crook = trainer.account if is_trainer_crooked else watcher.account
    run = LIE if lies else HONEST
    players = [Player(key, run=run if key.account == crook else HONEST) for key in chain.keys]
    players.append(Player(watcher, is_trainer=False, run=run if watcher.account == crook else HONEST))
    world = Crooked(chain, players, crook, random.Random(seed))
    chain.do((watcher, Bond(Amount(5_000))))
    job = start_job(
        world,
        rounds=Count(1),
        settlement=Settlement.BISECTION,
        steps_per_segment=Count(HONEST.steps),
        dispute_blocks=Count(BLOCKS),
    )
    reach_claims(world, job, ClaimStatus.REVEALING)
    claim = chain.claim_of(job, trainer)
    assert chain.do((watcher, Challenge(claim.claim, claim.first, Verdict.FALSE))) == ("",)
    start = chain.height
    (closed,) = world.finish(job)
    assert chain.height - start < MOVES_MAX * BLOCKS
    fate = next(entry.status for entry in closed.claims if entry.trainer == trainer.account)
    honest = [key for key in (*chain.keys, watcher) if key.account != crook]
    if is_trainer_crooked and not lies and fate.startswith("accepted"):
        honest.remove(watcher)  # it accused a true claim, and the trainer came through
    assert [chain.account(key).slashed for key in honest] == [0] * len(honest), fate
    if not is_trainer_crooked:
        assert fate == "accepted"
    elif lies:
        assert fate.startswith(("refuted", "void"))
    assert all(chain.account(key).open_claims == 0 for key in (*chain.keys, watcher))
