"""Matrix products on a CPU by tiles of small integers, and the choice of the quickest of several ways to a product."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType

import torch
from torch import Tensor

from milon.gpu import exact, fast
from milon.gpu.compiling import turn

TERMS_MAX = {13: 1 << 20, 21: 1 << 11}  # of a group: sums stay within two words of 32 bits, totals within 2^53
_PLANES = {13: 1, 21: 3}  # integers of 16 bits that an element is made of
_TRIES = 3  # of each way to a product of one kind before the quickest is kept


@cache
def tiles() -> ModuleType | None:
    """The compiled products by tiles, or None where they differ from the reference."""
    from milon.gpu import kernels_products

    with turn("products by tiles"):
        is_right = agrees(kernels_products)
    if not is_right:
        warnings.warn("products by tiles differ from the reference and are not used", stacklevel=2)
        return None
    return kernels_products


def agrees(loops: ModuleType) -> bool:
    """Whether products by tiles give the bits of the reference on small samples, in all layouts."""
    for sample in fast.samples():
        long = sample.repeat(3, 3)  # more than one tile, chunk and move of upper halves
        for left in (long, long.t(), long.t().contiguous().t()):
            right = left.t() if left.is_contiguous() else left.t().contiguous()
            for bits in TERMS_MAX:
                if not fast.is_same(multiply(loops, left, right, bits), exact.exact_matmul(left, right, bits)):
                    return False
    return True


def _pack(loops: ModuleType, values: Tensor, axis: int, width: int, bits: int, purpose: str) -> tuple[Tensor, Tensor]:
    """[groups, a, b] quantised along axis 1 or 2, as panels of `width` groups; and the scales back."""
    if not values.is_contiguous() and values.mT.is_contiguous():
        return _pack(loops, values.mT, 3 - axis, width, bits, purpose)
    values = values.contiguous()
    groups, count, terms = values.shape if axis == 2 else values.mT.shape
    panels, planes = groups * -(-count // width), _PLANES[bits]
    packed = fast.spaces.take(purpose, (panels * planes * (-(-terms // 2) * width + loops.SKEW),), torch.int32)
    back = fast.spaces.take(purpose + " back", (panels * width,), torch.float64)
    given = (fast.flat(values), fast.patterns(values), count, terms, width, planes, bits)
    if axis == 2:
        fast.split(loops.pack_rows, panels, values.numel(), *given, fast.flat(packed), fast.flat(back))
        return packed, back
    threads = fast.count_threads() if groups == 1 else 1
    slices = threads * -(-count // (threads * loops.SLICE_MAX))
    wide = -(-count // (slices * width)) * width
    pieces = groups * -(-count // wide)
    fast.split(loops.pack_columns, pieces, values.numel(), *given, wide, fast.flat(packed), fast.flat(back))
    return packed, back


def multiply(loops: ModuleType, left: Tensor, right: Tensor, bits: int) -> Tensor:
    """[groups, rows, inner] times [groups, inner, columns], or both without groups: rule N4."""
    result = torch.empty((*left.shape[:-1], right.shape[-1]))
    if left.dim() == 2:
        left, right = left.unsqueeze(0), right.unsqueeze(0)
    (groups, rows, inner), columns = left.shape, right.shape[2]
    ones, one_back = _pack(loops, left, 2, loops.ROWS, bits, "left")
    others, other_back = _pack(loops, right, 1, loops.COLUMNS, bits, "right")
    units, work = groups * -(-rows // loops.ROWS), left.numel() * columns
    fast.split(
        loops.multiply_panels, units, work, fast.flat(ones), fast.flat(others), -(-inner // 2), rows, columns,
        bits, fast.flat(one_back), fast.flat(other_back), fast.flat(result),
    )  # fmt: skip
    return result


Way = Callable[[Tensor, Tensor, int], Tensor]


class Choice:
    """Ways to one kind of product: the first calls take each in turn, later ones the quickest; the bits are one."""

    def __init__(self, ways: list[Way]) -> None:
        self._ways = ways
        self._best = [float("inf")] * len(ways)  # seconds
        self._calls = 0
        self.chosen = ways[0] if len(ways) == 1 else None

    def __call__(self, left: Tensor, right: Tensor, bits: int) -> Tensor:
        """The product."""
        if self.chosen is not None:
            return self.chosen(left, right, bits)
        place = self._calls % len(self._ways)
        self._calls += 1
        begun = time.perf_counter()
        result = self._ways[place](left, right, bits)
        self._best[place] = min(self._best[place], time.perf_counter() - begun)
        if self._calls >= _TRIES * len(self._ways):
            self.chosen = self._ways[self._best.index(min(self._best))]
        return result


_choices: dict[tuple[object, ...], Choice] = {}
_CHOICES_MAX = 1 << 12  # kinds of products in a process: beyond, all is forgotten and tried anew


def product(left: Tensor, right: Tensor, bits: int) -> Tensor:
    """`exact.exact_matmul`: rule N4, the same bits, by the way that was quickest for such operands before."""
    shapes = left.shape[:-2], right.shape[:-2]
    usable = left.device.type == "cpu" and left.numel() and right.numel() and shapes[0] == shapes[1]
    loops = tiles() if usable and left.shape[-1] <= TERMS_MAX[bits] and fast.kernels() is not None else None
    if loops is None:
        return fast.multiply(left, right, bits)
    if left.dim() > 3:
        return product(left.flatten(0, -3), right.flatten(0, -3), bits).view(*shapes[0], left.shape[-2], -1)
    kind = (bits, left.shape, right.shape, left.is_contiguous(), right.is_contiguous(), fast.count_threads())
    if kind not in _choices:
        if len(_choices) >= _CHOICES_MAX:
            _choices.clear()
        _choices[kind] = Choice([partial(multiply, loops), fast.multiply])
    return _choices[kind](left, right, bits)
