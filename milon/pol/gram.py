"""Rules and preparations that need only the inner products of the updates: unbounded integers, no rounding but stated.

An update stands for as many equal rows as it has weight, and every result here is that of the plain rule on the rows
written out. Rows are mixtures of updates: row k is `sum_i numerators[k][i] * update_i / denominator`. With G the Gram
matrix of the updates, N G N^T is that of the rows times the square of the denominator. All decisions compare integers
on one scale, ties by position. A rule answers with coefficients: the result is `sum_k taken[k] * row_k / whole`.

Roots and quotients of distances are quantised: a factor of a clipped row to `FACTOR_BITS`, a weight of the geometric
median and of centered clipping to as many bits as the sums over the updates leave free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, isqrt, lcm
from operator import mul

from milon.base.hashing import digest
from milon.base.ids import AccountId
from milon.pol.aggregation import compute_capped_weights, compute_faulty_weight, compute_weighted_lower_median
from milon.pol.pipeline import Pipeline, Preparation, Rule

Matrix = Sequence[Sequence[int]]

FACTOR_BITS = 16  # of the factor of a row that is shortened: five decimal places
MIXTURE_BITS = 33  # numerators of a row: times a 20-bit value they stay exact in binary64 in any order
RESULT_BITS = 43  # numerators of the result: times a 20-bit value they stay inside int64 in any order
INVERSE_BITS_MAX = 30  # of a distance's inverse; nine decimal places
INVERSE_BITS_MIN = 16  # where weights are so large that the result must be quantised once more
WEISZFELD_STEPS = 64  # the known answer stands to six places after 40
SMOOTHING_BITS = 32  # squared: no distance counts as less than 2^-16 of the median one
CLIPPING_STEPS = 3  # of centered clipping; one and three are what its authors measure


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rule sees: mixtures of the updates."""

    numerators: tuple[tuple[int, ...], ...]  # [rows][updates]; at most the denominator in sum
    denominator: int  # positive
    weights: tuple[int, ...]  # of the rows
    is_plain: bool  # the rows are the updates themselves


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A result as a sum of rows or updates."""

    taken: tuple[int, ...]  # one numerator each
    whole: int  # what they are divided by
    centre: int  # the numerator of centered clipping's centre; 0 for other rules
    scores: tuple[int, ...]  # of the rows, where the rule gives scores; the lower, the more central


def make_rows(weights: Sequence[int]) -> Rows:
    """The updates as rows."""
    count = len(weights)
    unit = tuple(tuple(int(row == update) for update in range(count)) for row in range(count))
    return Rows(unit, 1, tuple(weights), True)


def divide_half_up(numerator: int, denominator: int) -> int:
    """The integer nearest to numerator / denominator (positive), halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def _mix(rows: Rows, factors: Matrix, denominator: int, weights: Sequence[int]) -> Rows:
    """The rows `factors` / `denominator` times `rows`, in lowest terms and within `MIXTURE_BITS`."""
    columns = list(zip(*rows.numerators, strict=True))
    if rows.is_plain:
        mixed = [list(row) for row in factors]
    else:
        mixed = [[sum(map(mul, row, column)) for column in columns] for row in factors]
    whole = denominator * rows.denominator
    common = gcd(whole, *(gcd(*row) for row in mixed))
    whole //= common
    mixed = [[value // common for value in row] for row in mixed]
    if whole > 1 << MIXTURE_BITS:
        shorter = 1 << (MIXTURE_BITS - 1)
        mixed = [[divide_half_up(value * shorter, whole) for value in row] for row in mixed]
        whole = shorter
    return Rows(tuple(tuple(row) for row in mixed), whole, tuple(weights), False)


def compute_row_gram(rows: Rows, gram: Matrix) -> list[list[int]]:
    """Inner products of the rows, times the square of their denominator."""
    if rows.is_plain:
        return [list(row) for row in gram]
    halves = [[sum(map(mul, row, column)) for column in gram] for row in rows.numerators]
    count = len(rows.numerators)
    found = [[0] * count for _ in range(count)]
    for i in range(count):
        for j in range(i + 1):
            found[i][j] = found[j][i] = sum(map(mul, halves[i], rows.numerators[j]))
    return found


def compute_squared_distances(gram: Matrix) -> list[list[int]]:
    """G_ii + G_jj - 2 G_ij: symmetric, never negative, without cancellation."""
    count = len(gram)
    return [[gram[i][i] + gram[j][j] - 2 * gram[i][j] for j in range(count)] for i in range(count)]


def _take_nearest(distances: Sequence[int], weights: Sequence[int], budget: int) -> list[int]:
    """How much of each row is taken, by (distance, position), until `budget` is reached; the last one in part."""
    taken = [0] * len(weights)
    for _, position in sorted((distance, position) for position, distance in enumerate(distances)):
        taken[position] = min(budget, weights[position])
        budget -= taken[position]
    return taken


# ---- preparations ----


def _shorten(rows: Rows, squared_norms: Sequence[int], squared_limit: int) -> Rows:
    """The rows, those with more than the limit's length shortened to it."""
    one = 1 << FACTOR_BITS
    factors = [
        one if norm <= squared_limit else isqrt((squared_limit << 2 * FACTOR_BITS) // norm) for norm in squared_norms
    ]
    count = len(factors)
    matrix = [[factors[row] if row == other else 0 for other in range(count)] for row in range(count)]
    return _mix(rows, matrix, one, rows.weights)


def apply_clip(rows: Rows, gram: Matrix, thousandths: int) -> Rows:
    """No row longer than `thousandths` of the weighted lower median length."""
    norms = [row[position] for position, row in enumerate(gram)]
    median = compute_weighted_lower_median(norms, rows.weights)
    return _shorten(rows, norms, median * thousandths**2 // 10**6)


def apply_arc(rows: Rows, gram: Matrix, faulty_weight: int) -> Rows:
    """Adaptive robust clipping (Allouah et al. 2024, algorithm 2): the floor(2 F (W - F) / W) longest rows get the
    length of the next one."""
    norms = [row[position] for position, row in enumerate(gram)]
    total = sum(rows.weights)
    left = 2 * faulty_weight * (total - faulty_weight) // total
    for norm, position in sorted(((norm, position) for position, norm in enumerate(norms)), reverse=True):
        if rows.weights[position] > left:
            return _shorten(rows, norms, norm)
        left -= rows.weights[position]
    raise ValueError("the weight to be clipped is less than the whole")


def apply_nnm(rows: Rows, gram: Matrix, faulty_weight: int) -> Rows:
    """Nearest-neighbour mixing (Allouah et al. 2023): each row becomes the mean of the W - F nearest, its own weight
    among them."""
    kept = sum(rows.weights) - faulty_weight
    distances = compute_squared_distances(gram)
    return _mix(rows, [_take_nearest(row, rows.weights, kept) for row in distances], kept, rows.weights)


def apply_bucketing(rows: Rows, accounts: Sequence[AccountId], seed: bytes, size: int) -> Rows:
    """Rows in the order of a hash of seed and account, `size` at a time, become their weighted mean, with their
    weight together (Karimireddy et al. 2022). Accounts are shuffled, not equal rows."""
    count = len(rows.weights)
    order = sorted(range(count), key=lambda position: digest("bucketing", seed, accounts[position]))
    buckets = [order[start : start + size] for start in range(0, count, size)]
    weights = [sum(rows.weights[position] for position in bucket) for bucket in buckets]
    whole = lcm(*weights)
    matrix = [[0] * count for _ in buckets]
    for number, bucket in enumerate(buckets):
        for position in bucket:
            matrix[number][position] = rows.weights[position] * (whole // weights[number])
    return _mix(rows, matrix, whole, weights)


def prepare_rows(
    pipeline: Pipeline,
    gram: Matrix,
    weights: Sequence[int],
    accounts: Sequence[AccountId],
    faulty_count: int,
    seed: bytes,
) -> Rows:
    """The rows that the pipeline's preparations make of the updates; buckets are capped as updates are.

    `gram` may be empty where `needs_gram` says that nobody reads it.
    """
    rows = make_rows(weights)
    for step in pipeline.preparations:
        if step.kind is Preparation.BUCKETING:
            rows = apply_bucketing(rows, accounts, seed, step.numbers[0])
            capped = compute_capped_weights(pipeline.rule, rows.weights, faulty_count)
            rows = Rows(rows.numerators, rows.denominator, capped, False)
            continue
        products, faulty = compute_row_gram(rows, gram), compute_faulty_weight(rows.weights, faulty_count)
        if step.kind is Preparation.CLIP:
            rows = apply_clip(rows, products, step.numbers[0])
        elif step.kind is Preparation.ARC:
            rows = apply_arc(rows, products, faulty)
        else:
            rows = apply_nnm(rows, products, faulty)
    return rows


# ---- rules ----


def needs_gram(pipeline: Pipeline) -> bool:
    """Whether the updates' inner products are needed at all."""
    is_per_coordinate = pipeline.rule in (Rule.MEAN, Rule.MEDIAN, Rule.TRIMMED_MEAN)
    return not is_per_coordinate or any(step.kind is not Preparation.BUCKETING for step in pipeline.preparations)


def compute_krum_scores(squared: Matrix, weights: Sequence[int], faulty_weight: int) -> tuple[int, ...]:
    """Krum scores of weighted updates: the lower, the more central.

    A row's score sums the squared distances to its W - F - 1 nearest other rows (the variant with n - f - 1
    neighbours; Blanchard et al. sum n - f - 2), of which its own w - 1 equals come first, at distance zero.
    """
    total = sum(weights)
    scores = []
    for position, row in enumerate(squared):
        budget, score = total - faulty_weight - weights[position], 0
        others = sorted((row[other], other) for other in range(len(weights)) if other != position)
        for distance, other in others:
            taken = min(budget, weights[other])
            score += taken * distance
            budget -= taken
            if budget <= 0:
                break
        scores.append(score)
    return tuple(scores)


def compute_krum_selection(scores: Sequence[int], weights: Sequence[int], faulty_weight: int) -> tuple[int, ...]:
    """The weight multi-Krum takes of each update: by (score, position), until W - F is reached, the last in part."""
    return tuple(_take_nearest(scores, weights, sum(weights) - faulty_weight))


def _measure(gram: Matrix, taken: Sequence[int], whole: int) -> list[int]:
    """Squared distances of all rows to `sum_k taken[k] row_k / whole`, times the square of `whole`."""
    inner = [sum(map(mul, row, taken)) for row in gram]
    norm = sum(map(mul, inner, taken))
    return [whole * whole * gram[i][i] - 2 * whole * inner[i] + norm for i in range(len(gram))]


def _count_free_bits(weights: Sequence[int], denominator: int) -> int:
    """The bits a factor of the weights may have for the result to be exact over the updates."""
    used = sum(weights).bit_length() + denominator.bit_length()
    return max(INVERSE_BITS_MIN, min(INVERSE_BITS_MAX, RESULT_BITS - used))


def compute_geometric_median(gram: Matrix, weights: Sequence[int], denominator: int) -> tuple[int, ...]:
    """The rows' numerators in their geometric median, after `WEISZFELD_STEPS` steps from the weighted mean.

    Smoothed Weiszfeld (Pillutla et al. 2022, algorithm 2): a row's factor is the least distance over its own, in
    `_count_free_bits` bits, and no distance counts as less than 2^-16 of the median one, nor as less than one grid
    unit, which is `denominator`.
    """
    one_bits = _count_free_bits(weights, denominator)
    taken = list(weights)
    for _ in range(WEISZFELD_STEPS):
        whole = sum(taken)
        squared = _measure(gram, taken, whole)
        median = compute_weighted_lower_median(squared, weights)
        least = max(median >> SMOOTHING_BITS, (whole * denominator) ** 2)
        squared = [max(value, least) for value in squared]
        nearest = min(squared)
        following = [
            weight * isqrt((nearest << 2 * one_bits) // value) for weight, value in zip(weights, squared, strict=True)
        ]
        if following == taken:
            break
        taken = following
    return tuple(taken)


def compute_centered_clipping(
    gram: Matrix, weights: Sequence[int], denominator: int, thousandths: int
) -> tuple[tuple[int, ...], int]:
    """Numerators of the rows and of the centre, which is the last line of `gram`; their sum is what divides.

    Centered clipping (Karimireddy et al. 2021, section 5): z + sum_i w_i (x_i - z) min(1, t / |x_i - z|) / W, three
    times, where t is `thousandths` of the weighted lower median of the distances. Factors are quantised to
    `FACTOR_BITS`, what a unit of weight has in the end to the bits that are left.
    """
    total, one = sum(weights), 1 << FACTOR_BITS
    parts, centre, whole = [0] * len(weights), 1, 1  # a part is a row's numerator per unit of its weight
    for _ in range(CLIPPING_STEPS):
        taken = [part * weight for part, weight in zip(parts, weights, strict=True)]
        squared = _measure(gram, [*taken, centre], whole)[:-1]
        limit = compute_weighted_lower_median(squared, weights) * thousandths**2 // 10**6
        factors = [one if value <= limit else isqrt((limit << 2 * FACTOR_BITS) // value) for value in squared]
        rest = total * one - sum(map(mul, weights, factors))
        parts = [part * rest + whole * factor for part, factor in zip(parts, factors, strict=True)]
        centre, whole = centre * rest, whole * total * one
    final = 1 << max(24, RESULT_BITS - 1 - denominator.bit_length())
    taken = [divide_half_up(part * final, whole) * weight for part, weight in zip(parts, weights, strict=True)]
    return tuple(taken), divide_half_up(centre * final, whole)


def is_selecting(rule: Rule) -> bool:
    """Whether the rule takes some rows whole and leaves others out."""
    return rule in (Rule.KRUM, Rule.MULTI_KRUM, Rule.BULYAN, Rule.CTMA)


def _select(rule: Rule, gram: Matrix, rows: Rows, faulty_weight: int) -> Coefficients:
    """What a rule that selects rows takes of each."""
    total = sum(rows.weights)
    if rule is Rule.CTMA:
        anchor = compute_geometric_median(gram, rows.weights, rows.denominator)
        scores = tuple(_measure(gram, anchor, sum(anchor)))
        taken = _take_nearest(scores, rows.weights, total - faulty_weight)
        return Coefficients(tuple(taken), total - faulty_weight, 0, scores)
    scores = compute_krum_scores(compute_squared_distances(gram), rows.weights, faulty_weight)
    kept = {Rule.KRUM: 1, Rule.MULTI_KRUM: total - faulty_weight, Rule.BULYAN: total - 2 * faulty_weight}[rule]
    return Coefficients(tuple(_take_nearest(scores, rows.weights, kept)), kept, 0, scores)


def apply_rule(pipeline: Pipeline, rows: Rows, gram: Matrix, faulty_weight: int) -> Coefficients:
    """The rule's coefficients over the rows; for Bulyan what it selects, for rules per coordinate the weights.

    `gram` holds the updates' inner products; where there is a centre, its line and column come last.
    """
    rule = pipeline.rule
    if is_selecting(rule):
        return _select(rule, compute_row_gram(rows, gram), rows, faulty_weight)
    if rule is Rule.GEOMETRIC_MEDIAN:
        taken = compute_geometric_median(compute_row_gram(rows, gram), rows.weights, rows.denominator)
        return Coefficients(taken, sum(taken), 0, ())
    if rule is Rule.CENTERED_CLIPPING:
        if len(gram) == len(rows.numerators[0]):  # no centre yet: it is zero
            gram = [*([*row, 0] for row in gram), [0] * (len(gram) + 1)]
        products = compute_row_gram(_with_centre(rows), gram)
        taken, centre = compute_centered_clipping(products, rows.weights, rows.denominator, pipeline.rule_numbers[0])
        return Coefficients(taken, sum(taken) + centre, centre, ())
    return Coefficients(rows.weights, sum(rows.weights), 0, ())


def _with_centre(rows: Rows) -> Rows:
    """The rows over the updates and the centre, and a last row that is the centre itself."""
    lines = [(*row, 0) for row in rows.numerators]
    last = tuple([0] * len(rows.numerators[0]) + [rows.denominator])
    return Rows((*lines, last), rows.denominator, rows.weights, rows.is_plain and rows.denominator == 1)


def spread_over_updates(rows: Rows, coefficients: Coefficients) -> Coefficients:
    """The same result over the updates: in lowest terms, quantised once more where beyond `RESULT_BITS`."""
    columns = zip(*rows.numerators, strict=True)
    taken = coefficients.taken if rows.is_plain else tuple(sum(map(mul, coefficients.taken, c)) for c in columns)
    whole, centre = coefficients.whole * rows.denominator, coefficients.centre * rows.denominator
    common = gcd(whole, centre, *taken)
    taken, centre, whole = tuple(value // common for value in taken), centre // common, whole // common
    if whole > 1 << RESULT_BITS:
        shorter = 1 << (RESULT_BITS - 1)
        taken = tuple(divide_half_up(value * shorter, whole) for value in taken)
        centre, whole = divide_half_up(centre * shorter, whole), shorter
    return Coefficients(taken, whole, centre, coefficients.scores)
