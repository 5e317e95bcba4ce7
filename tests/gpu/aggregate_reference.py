"""The aggregation of a round once more, slow and dumb: Python integers and fractions, equal rows written out."""

from __future__ import annotations

from fractions import Fraction
from math import frexp, inf

from milon.pol.pipeline import Rule

State = dict[str, list[float]]


def round_to_binary32(value: Fraction) -> float:
    """Nearest binary32, ties to even; +0 for zero, a signed zero for what vanishes."""
    if value == 0:
        return 0.0
    magnitude, sign = abs(value), -1.0 if value < 0 else 1.0
    exponent = max(-149, magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - 25)
    while magnitude >= Fraction(2) ** (exponent + 24):
        exponent += 1
    mantissa = round(magnitude / Fraction(2) ** exponent)
    return sign * (inf if mantissa * Fraction(2) ** exponent >= Fraction(2) ** 128 else mantissa * 2.0**exponent)


def exponent_of(value: float) -> int:
    return frexp(value)[1]


def cap(rule: Rule, weights: list[int], f: int) -> list[int]:
    if rule is Rule.MEAN:
        return weights
    for limit in range(max(weights), 0, -1):
        capped = [min(weight, limit) for weight in weights]
        total, top = sum(capped), max(capped)
        heavy = 2 * sum(sorted(capped)[len(capped) - f :]) + (2 * top if rule is Rule.MULTI_KRUM else 0)
        if heavy < total and (len(capped) < 3 or 3 * top <= total):
            return capped
    raise AssertionError("the least weight always serves")


def repeat(values: list[int], weights: list[int]) -> list[int]:
    return [value for value, weight in zip(values, weights, strict=True) for _ in range(weight)]


def join(lists: list[list[int]]) -> list[int]:
    return [value for part in lists for value in part]


def median(values: list[int]) -> Fraction:
    ordered = sorted(values)
    return Fraction(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2], 2)


def lower_median(values: list[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def faulty_weight(weights: list[int], f: int) -> int:
    return sum(sorted(weights, reverse=True)[:f])


def trimmed_mean(values: list[int], trimmed: int) -> Fraction:
    kept = sorted(values)[trimmed : len(values) - trimmed]
    return Fraction(sum(kept), len(kept))


def krum_selected(rows: list[list[int]], weights: list[int], f: int) -> list[int]:
    """How many copies of each row multi-Krum takes, on the rows written out weight times each."""
    owners = repeat(list(range(len(rows))), weights)
    total, faulty = len(owners), faulty_weight(weights, f)
    scores = []
    for me, owner in enumerate(owners):
        distances = sorted(
            sum((a - b) ** 2 for a, b in zip(rows[owner], rows[other], strict=True))
            for index, other in enumerate(owners)
            if index != me
        )
        scores.append((sum(distances[: total - faulty - 1]), owner, me))
    taken = [owner for _, owner, _ in sorted(scores)[: total - faulty]]
    return [taken.count(index) for index in range(len(rows))]


def combine(rule: Rule, rows: list[list[int]], weights: list[int], f: int) -> tuple[list[Fraction], list[int]]:
    """The rule on integer rows: one fraction per column, and the weight taken of every row."""
    if rule is Rule.MULTI_KRUM:
        weights = krum_selected(rows, weights, f)
    columns = [repeat(list(column), weights) for column in zip(*rows, strict=True)]
    if rule is Rule.MEDIAN:
        return [median(column) for column in columns], weights
    trimmed = faulty_weight(weights, f) if rule is Rule.TRIMMED_MEAN else 0
    return [trimmed_mean(column, trimmed) for column in columns], weights


def screen(rows: list[list[int]], steps: list[int], weights: list[int], f: int) -> list[int]:
    centre = [median(repeat(list(column), weights)) for column in zip(*rows, strict=True)]
    squared = [
        count * sum((x - m) ** 2 for x, m in zip(row, centre, strict=True))
        for row, count in zip(rows, steps, strict=True)
    ]
    inner = [sum(x * m for x, m in zip(row, centre, strict=True)) for row in rows]
    norms = [sum(x * x for x in row) * sum(m * m for m in centre) for row in rows]
    against = [product < 0 and product**2 > Fraction(norm) / 64 for product, norm in zip(inner, norms, strict=True)]
    limit = 25 * sorted(repeat(squared, weights))[(sum(weights) - 1) // 2]
    out = [index for index in range(len(rows)) if squared[index] > limit or against[index]]
    return sorted(out, key=lambda index: (-squared[index], index))[:f]


def reference_round(
    base: State, finals: list[tuple[bytes, int, State]], rule: Rule, f: int
) -> tuple[State, list[bytes]]:
    """The new state and the accounts that had no part in it. The finals are finite and have the right names."""
    finals = sorted(finals, key=lambda final: final[0])
    steps = [final[1] for final in finals]
    weights = cap(rule, steps, f)
    shifts, values = {}, {}
    for name in sorted(base):
        updates = [
            [(after - before) / count for after, before in zip(state[name], base[name], strict=True)]
            for _, count, state in finals
        ]
        tops = [max((abs(x) for x in row), default=0.0) for row in updates]
        exponents = [[exponent_of(top)] * weight for top, weight in zip(tops, weights, strict=True) if top]
        shifts[name] = 17 - lower_median(join(exponents)) if exponents else 0
        grid = Fraction(2) ** shifts[name]
        values[name] = [[max(-524287, min(524287, round(Fraction(x) * grid))) for x in row] for row in updates]
    rows = [join([values[name][index] for name in sorted(base)]) for index in range(len(finals))]
    out = [] if rule is Rule.MEAN or len(rows) < 3 else screen(rows, steps, weights, f)
    kept = [index for index in range(len(rows)) if index not in out]
    weights = cap(rule, [steps[index] for index in kept], f - len(out))
    result, taken = combine(rule, [rows[index] for index in kept], weights, f - len(out))
    advance = Fraction(sum(steps[i] * w for i, w in zip(kept, taken, strict=True)), sum(taken))
    whole = int(advance + Fraction(1, 2))
    new, position = {}, 0
    for name in sorted(base):
        part = result[position : position + len(base[name])]
        position += len(base[name])
        unit = Fraction(1, 256) / Fraction(2) ** shifts[name]
        new[name] = [
            round_to_binary32(Fraction(before) + round(x * 256) * whole * unit)
            for before, x in zip(base[name], part, strict=True)
        ]
    lost = [finals[i][0] for i in range(len(rows)) if i not in kept or not taken[kept.index(i)]]
    return new, lost
