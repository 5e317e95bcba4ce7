"""Who holds which rows in a table of the lab: even shares, shares skewed by class, or one class each."""

from __future__ import annotations

import random
from collections.abc import Sequence

from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest

IID, ONE_CLASS, DIRICHLET = "iid", "one-class", "dirichlet"
CONCENTRATION_MIN = 1e-3  # below it the gamma variates underflow: every class goes to one trainer anyway
CONCENTRATION_MAX = 1e6  # above it the shares are even to a millionth
Rows = list[int]


def parse_split(text: str) -> tuple[str, float]:
    """The kind and concentration of "iid", "one-class" or "dirichlet:ALPHA"; `Rejected` for anything else."""
    name, sign, number = text.partition(":")
    if text in (IID, ONE_CLASS):
        return name, 0.0
    try:
        alpha = float(number) if name == DIRICHLET and sign else 0.0
    except ValueError:
        alpha = 0.0
    if not CONCENTRATION_MIN <= alpha <= CONCENTRATION_MAX:
        detail = f"a split {text[:64]!r}; there are {IID}, {ONE_CLASS} and {DIRICHLET}:ALPHA, such as {DIRICHLET}:0.3"
        raise Rejected(Reason.UNKNOWN, detail)
    return name, alpha


def _deal(rows: Sequence[int], trainers: int) -> list[Rows]:
    return [list(rows[place::trainers]) for place in range(trainers)]


def _cut(rows: Rows, shares: Sequence[float]) -> list[Rows]:
    """`rows` in consecutive parts as large as `shares`, whose ends are rounded to the nearest row."""
    total, reached, start, parts = sum(shares), 0.0, 0, []
    for share in shares:
        reached += share
        end = round(len(rows) * reached / total)
        parts.append(rows[start:end])
        start = end
    return parts


def _by_class(labels: Sequence[int], order: Sequence[int]) -> list[Rows]:
    found: dict[int, Rows] = {}
    for row in order:
        found.setdefault(labels[row], []).append(row)
    return [found[name] for name in sorted(found)]


def _skew(classes: list[Rows], trainers: int, alpha: float, chance: random.Random) -> list[Rows]:
    """Each class in shares drawn from a symmetric Dirichlet distribution (Hsu, Qi and Brown 2019)."""
    parts: list[Rows] = [[] for _ in range(trainers)]
    for rows in classes:
        shares = [chance.gammavariate(alpha, 1.0) for _ in range(trainers)]
        if not sum(shares):
            shares[chance.randrange(trainers)] = 1.0
        for part, added in zip(parts, _cut(rows, shares), strict=True):
            part += added
    for part in parts:
        if not part:  # nobody comes with empty hands: the richest gives one row
            part.append(max(parts, key=len).pop())
    return parts


def _one_class_each(classes: list[Rows], trainers: int) -> list[Rows]:
    """Trainer i holds class i modulo their number; several share one, and fewer than classes hold several each."""
    if trainers <= len(classes):
        return [[row for rows in classes[place::trainers] for row in rows] for place in range(trainers)]
    holders = [[place for place in range(trainers) if place % len(classes) == name] for name in range(len(classes))]
    parts: list[Rows] = [[] for _ in range(trainers)]
    for rows, places in zip(classes, holders, strict=True):
        for place, dealt in zip(places, _deal(rows, len(places)), strict=True):
            parts[place] = dealt
    return parts


def split_rows(labels: Sequence[int], trainers: int, split: str, seed: int) -> list[Rows]:
    """The rows of each of `trainers`, every row with one of them and none without a row.

    `labels`: the class of each row; all 0 where there are none, and then only "iid" means anything. The same arguments
    give the same rows. Raises `Rejected`: UNKNOWN for another split, TOO_FEW where rows do not go round.
    """
    name, alpha = parse_split(split)
    require(0 < trainers <= len(labels), Reason.TOO_FEW, f"{len(labels)} rows for {trainers} trainers")
    mixed = digest("lab-split", split.encode(), trainers.to_bytes(4, "big"), seed.to_bytes(8, "big"))
    chance = random.Random(int.from_bytes(mixed, "big"))
    order = list(range(len(labels)))
    chance.shuffle(order)
    if name == IID:
        return _deal(order, trainers)
    classes = _by_class(labels, order)
    parts = _skew(classes, trainers, alpha, chance) if name == DIRICHLET else _one_class_each(classes, trainers)
    fewest = min(len(part) for part in parts)
    require(fewest > 0, Reason.TOO_FEW, f"a class has fewer rows than there are trainers to hold it: {split}")
    for part in parts:
        chance.shuffle(part)  # by class until here
    return parts
