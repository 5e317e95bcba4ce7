"""Every kind of attack by name: what it needs to know, how strong it is, and which paper it is from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.gpu.attacks import gaussian, not_a_number, scale, sign_flip, stand_still
from milon.gpu.attacks_crowd import (
    Crowd,
    Judge,
    State,
    choose_mimicked,
    compute_hidden_deviations,
    inner_product,
    inner_product_optimised,
    little_is_enough,
    little_is_enough_optimised,
    min_max,
    min_sum,
)

Finals = list[dict[str, Tensor]]


def _judge_nothing(state: State) -> int:
    raise Rejected(Reason.UNSUPPORTED, "this attack needs to run the rule itself, and nobody gave it one")


@dataclass(frozen=True, slots=True)
class Scene:
    """What the attackers of one round know."""

    round_state: State  # before the round
    own: Sequence[State]  # one an attacker: the final state it trained as prescribed
    honest: Sequence[State]  # the others' finals, or guesses of them
    seed: int  # of what is drawn
    judge: Judge = field(default=_judge_nothing)  # see `attacks_crowd`

    def look(self) -> Crowd:
        """The honest updates, for arithmetic."""
        return Crowd(self.round_state, self.honest)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of attack."""

    name: str  # as commands know it
    make: Callable[[Scene, float], Finals]  # one final per attacker
    factor: float  # its strength where none is named; 0 where it has none, or chooses it itself
    needs: str  # "own": the attacker's own final; "crowd": the honest ones; "rule": these, and the rule itself
    source: str  # the paper, and what the factor counts


def _alone(attack: Callable[[State, State, float], dict[str, Tensor]]) -> Callable[[Scene, float], Finals]:
    return lambda scene, factor: [attack(scene.round_state, final, factor) for final in scene.own]


def _together(attack: Callable[[Crowd], dict[str, Tensor]]) -> Callable[[Scene, float], Finals]:
    return lambda scene, _: [attack(scene.look())] * len(scene.own)


def _judged(attack: Callable[[Crowd, Judge], dict[str, Tensor]]) -> Callable[[Scene, float], Finals]:
    return lambda scene, _: [attack(scene.look(), scene.judge)] * len(scene.own)


def _make_noise(scene: Scene, factor: float) -> Finals:
    return [gaussian(scene.round_state, final, scene.seed + place, factor) for place, final in enumerate(scene.own)]


def _make_hidden(scene: Scene, factor: float) -> Finals:
    attackers = len(scene.own)
    deviations = factor or compute_hidden_deviations(attackers + len(scene.honest), attackers)
    return [little_is_enough(scene.look(), deviations)] * attackers


def _make_mimics(scene: Scene, _: float) -> Finals:
    return [dict(scene.honest[choose_mimicked(scene.look())])] * len(scene.own)


def _make_copies(scene: Scene, _: float) -> Finals:
    return [dict(scene.honest[place % len(scene.honest)]) for place in range(len(scene.own))]


_ALL = (
    Kind("sign-flip", _alone(sign_flip), 10.0, "own", "Li et al. 2019; times the honest size"),
    Kind("scaled", _alone(scale), 10.0, "own", "Bagdasaryan et al. 2020; times the honest size"),
    Kind("noise", _make_noise, 10.0, "own", "Blanchard et al. 2017; times the honest size"),
    Kind("nan", _alone(lambda _, final, __: not_a_number(final)), 0.0, "own", "one coordinate is not a number"),
    Kind("infinity", _alone(lambda _, final, __: not_a_number(final, float("inf"))), 0.0, "own", "one is infinite"),
    Kind("huge", _alone(scale), 1e30, "own", "times the honest size"),
    Kind("zero", _alone(lambda base, final, _: stand_still(base, final)), 0.0, "own", "Lin et al. 2019: no work"),
    Kind("label-flip", _alone(lambda _, final, __: dict(final)), 0.0, "own", "Fang et al. 2020: class c as C - 1 - c"),
    Kind(
        "duplicate", lambda scene, _: [dict(scene.own[0])] * len(scene.own), 0.0, "crowd", "all send one's honest work"
    ),
    Kind("copy", _make_copies, 0.0, "crowd", "each sends another's work"),
    Kind("mimic", _make_mimics, 0.0, "crowd", "Karimireddy et al. 2022: all send the most unusual one's work"),
    Kind("alie", _make_hidden, 0.0, "crowd", "Baruch et al. 2019; deviations, 0: the paper's"),
    Kind("alie-optimised", _judged(little_is_enough_optimised), 0.0, "rule", "the worst deviations for the rule"),
    Kind(
        "ipm", lambda s, f: [inner_product(s.look(), f)] * len(s.own), 0.1, "crowd", "Xie et al. 2020; times the mean"
    ),
    Kind("ipm-optimised", _judged(inner_product_optimised), 0.0, "rule", "the worst factor for the rule"),
    Kind("min-max", _together(min_max), 0.0, "crowd", "Shejwalkar and Houmansadr 2021, section 4.3"),
    Kind("min-sum", _together(min_sum), 0.0, "crowd", "Shejwalkar and Houmansadr 2021, section 4.3"),
)
ATTACKS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
KINDS = tuple(ATTACKS)  # as `milon testnet --adversary` names them, beside those of `attacks_runs`
LABEL_FLIP = "label-flip"  # the attackers' data is flipped before they train; their finals are what came out
FACTOR_MAX = 3e38  # binary32's range
GUESSES_MAX = 8  # segments whose states an attacker keeps: enough for a deviation, bounded in memory


def parse_attack(text: str) -> tuple[Kind, float]:
    """The kind and strength of "KIND" or "KIND:FACTOR"; `Rejected` for others."""
    name, sign, number = text.partition(":")
    kind = ATTACKS.get(name)
    if kind is None:
        raise Rejected(Reason.UNKNOWN, f"an attack {name[:64]!r}; known are {', '.join(ATTACKS)}")
    try:
        factor = float(number) if sign else kind.factor
    except ValueError:
        raise Rejected(Reason.MALFORMED, f"attack {text[:64]!r}: {number[:32]!r} is no number") from None
    require(-FACTOR_MAX <= factor <= FACTOR_MAX, Reason.OUT_OF_RANGE, f"attack {text[:64]!r}: out of range")
    return kind, factor


def make_finals(text: str, scene: Scene) -> Finals:
    """What the attackers of `scene` claim, one final each, under the attack "KIND" or "KIND:FACTOR".

    Raises `Rejected`: UNKNOWN for another kind, UNSUPPORTED where it needs a rule and the scene has none.
    """
    kind, factor = parse_attack(text)
    return kind.make(scene, factor)


def guess_finals(states: Sequence[State], segments: int) -> list[dict[str, Tensor]]:
    """Final states that other trainers of `segments` segments might have: an attacker's own, each made the whole.

    `states` holds the attacker's state before and after each of its segments; the change over one of them, times
    `segments`, differs from trainer to trainer as from segment to segment (Baruch et al. 2019 let the attackers'
    own honest updates stand for everybody's).
    """
    first, guesses = states[0], []
    for before, after in pairwise(states):
        moved = {
            name: first[name] + (after[name] - before[name]) * segments if after[name].is_floating_point() else value
            for name, value in after.items()
        }
        guesses.append(moved)
    return guesses


def apply_attack(
    kind: str,
    round_state: State,
    final_state: State,
    seed: int,
    guesses: Sequence[State] = (),
    judge: Judge = _judge_nothing,
) -> dict[str, Tensor]:
    """The final state that an adversary of `kind` (one of `KINDS`) claims; `Rejected(UNKNOWN)` for another kind.

    `guesses` stand for the honest finals; where there are none, its own does. `judge`: for kinds that need the rule.
    """
    if kind not in KINDS:
        raise Rejected(Reason.UNKNOWN, f"an adversary of kind {kind!r}; known are {', '.join(KINDS)}")
    return make_finals(kind, Scene(round_state, (final_state,), guesses or (final_state,), seed, judge))[0]
