"""The names of an aggregation's parts, what each bears and needs, and how a job writes them in one line of text.

A pipeline is `[preparation,]... rule [,outer optimizer]`, such as "arc,nnm,trimmed-mean" or "multi-krum,nesterov".
A part may carry whole numbers after colons, such as "bucketing:3"; without them it takes its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.errors import Reason, Rejected, require

TEXT_CHARACTERS_MAX = 128  # six parts with their numbers, on a line of a screen


class Rule(StrEnum):
    """How accepted updates become one."""

    MEAN = "mean"
    TRIMMED_MEAN = "trimmed-mean"
    MEDIAN = "median"
    KRUM = "krum"
    MULTI_KRUM = "multi-krum"
    BULYAN = "bulyan"
    GEOMETRIC_MEDIAN = "geometric-median"
    CENTERED_CLIPPING = "centered-clipping"
    CTMA = "ctma"


class Preparation(StrEnum):
    """What is done to the updates before the rule."""

    CLIP = "clip"
    ARC = "arc"
    NNM = "nnm"
    BUCKETING = "bucketing"


class Outer(StrEnum):
    """How the rule's result moves the round's state."""

    PLAIN = "plain"
    MOMENTUM = "momentum"
    NESTEROV = "nesterov"
    ADAM = "adam"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A whole number that a part may carry."""

    meaning: str  # for people
    default: int  # where the text names none
    low: int  # smallest allowed
    high: int  # largest allowed


@dataclass(frozen=True, slots=True)
class Facts:
    """What people want to know of a part before they choose it."""

    summary: str  # what it does
    breakdown: str  # the largest hostile share it is made for
    needs: str  # updates, where f of them may be hostile, and whatever else
    source: str  # where it was published
    parameters: tuple[Parameter, ...] = ()  # in the order they are written


FACTS: dict[str, Facts] = {
    Rule.MEAN: Facts("weighted mean", "none", "1 update", "McMahan et al. 2017"),
    Rule.TRIMMED_MEAN: Facts(
        "per coordinate the mean without the f lowest and f highest", "under 1/2", "2f + 1 updates", "Yin et al. 2018"
    ),
    Rule.MEDIAN: Facts("per coordinate the weighted median", "under 1/2", "2f + 1 updates", "Yin et al. 2018"),
    Rule.KRUM: Facts(
        "the update with the least sum of squared distances to its n - f - 1 nearest others",
        "under 1/2", "2f + 3 updates", "Blanchard et al. 2017",
    ),
    Rule.MULTI_KRUM: Facts(
        "the mean of the n - f updates with the best Krum scores", "under 1/2", "2f + 3 updates",
        "Blanchard et al. 2017",
    ),
    Rule.BULYAN: Facts(
        "n - 2f updates by Krum's scores, then per coordinate the mean of the n - 4f nearest to their median",
        "under 1/4", "4f + 3 updates", "El Mhamdi et al. 2018",
    ),
    Rule.GEOMETRIC_MEDIAN: Facts(
        "the point with the least sum of distances (RFA, 64 Weiszfeld steps)", "under 1/2", "2f + 1 updates",
        "Pillutla et al. 2022",
    ),
    Rule.CENTERED_CLIPPING: Facts(
        "three steps from the round before's result towards the updates, each step clipped at the median distance",
        "under 1/10 by its proof", "2f + 1 updates; carries its centre from round to round", "Karimireddy et al. 2021",
        (Parameter("clipping radius in thousandths of the median distance", 1_000, 1, 1_000_000),),
    ),
    Rule.CTMA: Facts(
        "the mean of the n - f updates nearest to the geometric median", "under 1/2", "2f + 1 updates",
        "Dahan and Levy 2024",
    ),
    Preparation.CLIP: Facts(
        "shortens updates that are longer than the median length", "under 1/2", "2f + 1 updates", "a common practice",
        (Parameter("longest norm in thousandths of the median norm", 1_000, 1, 1_000_000),),
    ),
    Preparation.ARC: Facts(
        "shortens the 2f(n - f)/n longest updates to the length of the next one", "under 1/2", "2f + 1 updates",
        "Allouah et al. 2024",
    ),
    Preparation.NNM: Facts(
        "puts the mean of its n - f nearest, itself among them, in each update's place", "under 1/2",
        "2f + 1 updates", "Allouah et al. 2023",
    ),
    Preparation.BUCKETING: Facts(
        "puts means of updates drawn by the round's seed in their place", "that of the rule, divided by the size",
        "as many buckets as the next part needs updates", "Karimireddy et al. 2022",
        (Parameter("updates in a bucket", 2, 2, 64),),
    ),
    Outer.PLAIN: Facts("adds the result", "-", "nothing", "McMahan et al. 2017"),
    Outer.MOMENTUM: Facts(
        "adds a sum of the results so far that fades", "-", "a memory as large as the model", "Hsu et al. 2019",
        (Parameter("momentum in thousandths", 900, 0, 999), Parameter("rate in thousandths", 1_000, 1, 10_000)),
    ),
    Outer.NESTEROV: Facts(
        "the same, looking one step ahead (DiLoCo's)", "-", "a memory as large as the model", "Douillard et al. 2023",
        (Parameter("momentum in thousandths", 900, 0, 999), Parameter("rate in thousandths", 700, 1, 10_000)),
    ),
    Outer.ADAM: Facts(
        "steps of a size of its own for each coordinate (FedAdam)", "-", "a memory twice as large as the model",
        "Reddi et al. 2021",
        (Parameter("rate in thousandths", 10, 1, 10_000),),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A preparation with its numbers."""

    kind: Preparation  # which
    numbers: tuple[int, ...]  # its parameters, in order


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How a job's updates become one and move its state."""

    text: str  # as the job wrote it
    preparations: tuple[Step, ...]  # in the order they are applied
    rule: Rule  # what follows
    rule_numbers: tuple[int, ...]  # its parameters
    outer: Outer  # what moves the state
    outer_numbers: tuple[int, ...]  # its parameters


def _read_numbers(name: str, words: list[str]) -> tuple[int, ...]:
    parameters = FACTS[name].parameters
    require(len(words) <= len(parameters), Reason.MALFORMED, f"{name} takes {len(parameters)} numbers")
    numbers = [parameter.default for parameter in parameters]
    for place, word in enumerate(words):
        parameter = parameters[place]
        is_number = word.isascii() and word.isdigit() and (word == "0" or word[0] != "0") and len(word) <= 9
        require(is_number, Reason.MALFORMED, f"{word!r} is no number for {name}: {parameter.meaning}")
        numbers[place] = int(word)
        is_within = parameter.low <= numbers[place] <= parameter.high
        limits = f"{parameter.low} to {parameter.high}"
        require(is_within, Reason.OUT_OF_RANGE, f"{name}'s {parameter.meaning} is {word}; it may be {limits}")
    return tuple(numbers)


def parse_pipeline(text: str) -> Pipeline:
    """The pipeline that `text` names.

    Raises `Rejected`: UNKNOWN for a name that no part has, MALFORMED for parts in another order than preparations,
    one rule, at most one outer optimizer, or for something that is no number, OUT_OF_RANGE for a number too large.
    """
    text = str(text)
    require(0 < len(text) <= TEXT_CHARACTERS_MAX, Reason.MALFORMED, "an aggregator's name has 1 to 128 characters")
    preparations: list[Step] = []
    rule: tuple[Rule, tuple[int, ...]] | None = None
    outer: tuple[Outer, tuple[int, ...]] | None = None
    for part in text.split(","):
        name, *words = part.split(":")
        if name not in FACTS:
            raise Rejected(Reason.UNKNOWN, f"an aggregator called {name!r}; known are {', '.join(FACTS)}")
        numbers = _read_numbers(name, words)
        if outer is not None:
            raise Rejected(Reason.MALFORMED, f"{name} after the outer optimizer {outer[0].value}")
        if name in tuple(Outer):
            require(rule is not None, Reason.MALFORMED, f"the outer optimizer {name} comes after a rule")
            outer = Outer(name), numbers
        elif name in tuple(Rule):
            require(rule is None, Reason.MALFORMED, f"{name} is a second rule")
            rule = Rule(name), numbers
        else:
            require(rule is None, Reason.MALFORMED, f"the preparation {name} comes before the rule")
            is_first = all(step.kind.value != name for step in preparations)
            require(is_first, Reason.MALFORMED, f"{name} appears twice")
            preparations.append(Step(Preparation(name), numbers))
    if rule is None:
        raise Rejected(Reason.MALFORMED, f"{text!r} names no rule; rules are {', '.join(Rule)}")
    outer = outer or (Outer.PLAIN, ())
    return Pipeline(text, tuple(preparations), *rule, *outer)


def _count_needed_by_rule(rule: Rule, faulty_count: int) -> int:
    """Trimmed mean, median and geometric median: 2f + 1 (Yin et al. 2018, Pillutla et al. 2022). Krum: 2f + 3
    (Blanchard et al. 2017, section 4). Bulyan: 4f + 3 (El Mhamdi et al. 2018). The mean bears no hostile update
    whatever f says (Blanchard et al. 2017, lemma 1), so it needs only one."""
    if rule is Rule.MEAN:
        return 1
    if rule is Rule.BULYAN:
        return 4 * faulty_count + 3
    return 2 * faulty_count + (3 if rule in (Rule.KRUM, Rule.MULTI_KRUM) else 1)


def compute_count_needed(pipeline: Pipeline | str, faulty_count: int) -> int:
    """The fewest updates `pipeline` may be applied to when `faulty_count` of them may be hostile."""
    if isinstance(pipeline, str):
        pipeline = parse_pipeline(pipeline)
    needed = _count_needed_by_rule(pipeline.rule, faulty_count)
    for step in reversed(pipeline.preparations):
        if step.kind is Preparation.BUCKETING:
            needed = (needed - 1) * step.numbers[0] + 1
        else:
            needed = max(needed, 2 * faulty_count + 1)
    return needed
