"""The quick ways to the sums and products of `milon.gpu.exact` on a CPU, used once they have proven to be the same.

Plain torch (`milon.gpu.exact`) is the reference. On a CPU the compiled loops of `milon.gpu.kernels_cpu` do the passes
around a product, and with M = 13 the product itself may be four products of int8 digits in int32. Both prove
themselves against the reference when first needed and are dropped, with a warning, if they differ: an int8 product of
a library was seen to be wrong where its instruction set had been capped.
"""

from __future__ import annotations

import ctypes
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from milon.gpu import exact
from milon.gpu.compiling import turn

DIGIT_BITS = 13  # the M whose integers have two digits to base 128
DIGIT_TERMS_MAX = 1 << 16  # rule N4: products of digits of at most this many terms stay within int32
SUM_TERMS_MAX = 1 << 22  # rule N3: totals of more need two limbs
COMPILED_OPERATIONS_MIN = 1 << 27  # about 50 ms a step in plain torch; loading takes a second, compiling once twenty
INFINITY_BITS = 0x7F800000  # of binary32
_MALLOC_TRIM, _MALLOC_LARGE = -1, -3  # names of parameters in malloc.h
_MALLOC_LARGE_BYTES = 1 << 25  # the most that glibc takes: larger pieces come from and go to the system each time
_MALLOC_KEPT_BYTES = 1 << 28  # at most a quarter GiB stays with a process that is done with its step
_KEPT_BYTES_MAX = 1 << 23  # of one purpose: what is kept between products stays far below any budget
_SPLIT_ELEMENTS = 1 << 15  # below, handing work to a second thread costs more than it saves
_ROWS_AT_ONCE = 256  # of an int8 product: its results are scaled back while a cache holds them
_DIGIT_WORK_MIN = 1 << 21  # products of fewer elementary steps are quicker in binary64: one call instead of passes


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kernel")


class _Held(threading.local):
    count = 0  # threads that this one may use while torch is held to one; 0 while it is not


_held = _Held()


def count_threads() -> int:
    """How many threads a loop may use: as many as torch was told to use."""
    return _held.count or torch.get_num_threads()


@contextmanager
def own_threads() -> Iterator[None]:
    """Within, loops use the threads and torch's own operations only one.

    After each of its operations torch's idle threads wait by spinning, for milliseconds: where there are no more
    processors than threads, they would take those from the loops.
    """
    count = count_threads()
    if count == 1 or _held.count or not _Choice.is_compiled:
        yield
        return
    _held.count = count
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
        _held.count = 0


def flat(tensor: Tensor) -> Any:
    """The elements of a contiguous tensor as one array, sharing memory."""
    return tensor.view(-1).numpy()


def patterns(tensor: Tensor) -> Any:
    """The same with binary32 numbers as 32-bit integers."""
    return tensor.view(-1).view(torch.int32).numpy()


def split(kernel: Callable[..., Any], count: int, elements: int, *arguments: Any) -> None:
    """Run `kernel(first, last, ...)` over `count` ranges' worth of work, on as many threads as torch uses."""
    threads = min(count_threads(), count) if elements >= _SPLIT_ELEMENTS else 1
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    marks = [count * part // threads for part in range(threads + 1)]
    waiting = [_pool().submit(kernel, marks[part], marks[part + 1], *arguments) for part in range(1, threads)]
    kernel(0, marks[1], *arguments)
    for future in waiting:
        future.result()


class _Spaces(threading.local):
    """Memory for what lives inside one product, kept between products: fresh memory costs as much as the product."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with whatever was in it; the one taken before for the same purpose is lost."""
        size_bytes = prod(shape) * dtype.itemsize
        if size_bytes > _KEPT_BYTES_MAX:
            return torch.empty(shape, dtype=dtype)
        held = self._held.get(purpose)
        if held is None or held.numel() < size_bytes:
            self._held.pop(purpose, None)
            held = self._held[purpose] = torch.empty(size_bytes, dtype=torch.uint8)
        return held[:size_bytes].view(dtype).view(shape)


spaces = _Spaces()


class _Choice:
    """Whether this process uses compiled loops; only a matter of speed, so no result depends on it."""

    is_compiled = False


def choose(operations: int) -> None:
    """Use compiled loops from now on if a step of so many operations gains more than loading them costs."""
    if operations >= COMPILED_OPERATIONS_MIN:
        _Choice.is_compiled = True


def kernels() -> ModuleType | None:
    """The compiled loops, or None where they are not used, cannot be had or differ from the reference."""
    return _load_kernels() if _Choice.is_compiled else None


def _keep_memory() -> None:
    """Let the C library keep what is freed: every step takes the same, and fresh pages cost as much as arithmetic."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MALLOC_LARGE, _MALLOC_LARGE_BYTES)
        library.mallopt(_MALLOC_TRIM, _MALLOC_KEPT_BYTES)


@cache
def _load_kernels() -> ModuleType | None:
    _keep_memory()
    try:
        from milon.gpu import kernels_cpu
    except ImportError:
        warnings.warn("numba is missing: training takes the slow path (the bits are the same)", stacklevel=2)
        return None
    with turn("the loops of sums and products"):
        is_right = agrees(kernels_cpu)
    if not is_right:
        warnings.warn("compiled loops differ from the reference and are not used", stacklevel=2)
        return None
    return kernels_cpu


def samples() -> list[Tensor]:
    """Small matrices with all that numbers can be: zeros, subnormals, halves, huge and special ones."""
    base = torch.arange(-600, 600, dtype=torch.float32).mul_(0.37).reshape(24, 50)
    spread = base * torch.exp2(torch.arange(50).mul(5).sub(140).float())
    special = spread.clone()
    special[3, 4], special[5, 6], special[7, 8], special[9, :] = torch.inf, torch.nan, -0.0, 0.0
    return [base, spread, special, base * 2.0**-143, base * 2.0**118]


def is_same(found: Tensor, wanted: Tensor) -> bool:
    """Whether the bits are equal, every NaN being one."""
    return torch.equal(exact.canonical_nan(found).view(torch.int32), exact.canonical_nan(wanted).view(torch.int32))


def agrees(loops: ModuleType) -> bool:
    """Whether compiled sums and products give the bits of the reference on small samples."""
    for sample in samples():
        for axes in ([0], [1], [0, 1]):
            if not is_same(_sum(loops, sample, axes, True), exact.exact_sum(sample, axes, True)):
                return False
        for bits in (13, 21):
            wanted = exact.exact_matmul(sample, sample.t(), bits)
            if not is_same(_multiply(loops, sample, sample.t(), bits), wanted):
                return False
            if not is_same(_multiply(loops, sample.t(), sample, bits), exact.exact_matmul(sample.t(), sample, bits)):
                return False
    return True


def _time(function: Callable[[], Any]) -> float:
    best = 1.0
    for _ in range(3):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return best


@cache
def has_digit_products() -> bool:
    """Whether int8 products are right here, in all layouts, and quicker than binary64 ones."""
    for rows, inner, columns in ((2, 3, 5), (64, 130, 96), (250, 300, 270), (16, 8192, 33)):
        left = torch.arange(rows * inner).mul(37).remainder(129).sub(64).to(torch.int8).reshape(rows, inner)
        right = torch.arange(columns * inner).mul(53).remainder(129).sub(64).to(torch.int8).reshape(columns, inner)
        left[0], right[0] = 64, -64  # the farthest totals
        wanted = torch.matmul(left.double(), right.t().double())
        for other in (right.t(), right.t().contiguous()):
            if not torch.equal(torch._int_mm(left, other).double(), wanted):
                warnings.warn("int8 products are wrong on this machine and are not used", stacklevel=2)
                return False
    left, right = torch.ones(256, 256, dtype=torch.int8), torch.ones(256, 256, dtype=torch.int8)
    wide = left.double(), right.double()
    return 4 * _time(lambda: torch._int_mm(left, right)) < _time(lambda: torch.matmul(*wide))


def quantize(loops: ModuleType, values: Tensor, axis: int, bits: int, purpose: str) -> tuple[Tensor, Tensor]:
    """`exact.quantize` of [groups, a, b] along axis 1 or 2; the result is laid out in memory as `values` is."""
    if values.mT.is_contiguous() and not values.is_contiguous():
        integers, back = quantize(loops, values.mT, 3 - axis, bits, purpose)
        return integers.mT, back
    values = values.contiguous()
    result = spaces.take(purpose, tuple(values.shape), torch.float64)
    groups, rows, columns = values.shape
    back = torch.empty(groups * (rows if axis == 2 else columns), dtype=torch.float64)
    given = (flat(values), patterns(values))
    if axis == 2:
        rest = (columns, bits, flat(result), flat(back))
        split(loops.quantize_rows, groups * rows, values.numel(), *given, *rest)
    else:
        pieces = groups * -(-columns // loops.SLICE)
        rest_columns = (rows, columns, bits, flat(result), flat(back))
        split(loops.quantize_columns, pieces, values.numel(), *given, *rest_columns)
    return result, back


def digits(loops: ModuleType, values: Tensor, axis: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Both digits, [2, a, b], of a matrix [a, b] quantised along `axis`; and the scale back."""
    if values.mT.is_contiguous() and not values.is_contiguous():
        found, back = digits(loops, values.mT, 1 - axis, purpose)
        return found.mT, back
    values = values.contiguous()
    rows, columns = values.shape
    found = spaces.take(purpose, (2, rows, columns), torch.int8)
    back = torch.empty(rows if axis == 1 else columns, dtype=torch.float64)
    given, rest = (flat(values), patterns(values)), (DIGIT_BITS, flat(found[0]), flat(found[1]), flat(back))
    if axis == 1:
        split(loops.digits_of_rows, rows, values.numel(), *given, columns, *rest)
        return found, back
    split(loops.digits_of_columns, -(-columns // loops.SLICE), values.numel(), *given, rows, columns, *rest)
    return found, back


def multiply_digits(left: Tensor, right: Tensor, products: Tensor) -> None:
    """The four products of digits: [2, rows, inner] by [2, inner, columns] into [2, 2, rows, columns] int32."""
    for one in (0, 1):
        for other in (0, 1):
            torch._int_mm(left[one], right[other], out=products[one, other])


def multiply_in_digits(loops: ModuleType, left: Tensor, right: Tensor) -> Tensor:
    """[rows, inner] times [inner, columns] with M = 13 by four products of digits, some rows at a time."""
    left_digits, left_back = digits(loops, left, 1, "left")
    right_digits, right_back = digits(loops, right, 0, "right")
    rows, columns = left.shape[0], right.shape[1]
    result = torch.empty(rows, columns)
    for first in range(0, rows, _ROWS_AT_ONCE):
        some = min(_ROWS_AT_ONCE, rows - first)
        products = spaces.take("products", (2, 2, some, columns), torch.int32)
        multiply_digits(left_digits[:, first : first + some], right_digits, products)
        split(
            loops.scale_back_digits, some, products.numel(), flat(products), some, columns,
            flat(left_back[first : first + some]), flat(right_back), flat(result[first : first + some]),
        )  # fmt: skip
    return result


def _multiply(loops: ModuleType, left: Tensor, right: Tensor, bits: int) -> Tensor:
    """[groups, rows, inner] times [groups, inner, columns], or both without groups."""
    work = left.numel() * right.shape[-1]
    inner = left.shape[-1]
    is_fit = left.dim() == 2 and bits == DIGIT_BITS and work >= _DIGIT_WORK_MIN and inner <= DIGIT_TERMS_MAX
    if is_fit and has_digit_products():
        return multiply_in_digits(loops, left, right)
    result = torch.empty((*left.shape[:-1], right.shape[-1]))
    if left.dim() == 2:
        left, right = left.unsqueeze(0), right.unsqueeze(0)
    left_integers, left_back = quantize(loops, left, 2, bits, "left")
    right_integers, right_back = quantize(loops, right, 1, bits, "right")
    groups, rows, columns = left.shape[0], left.shape[1], right.shape[2]
    if inner <= 1 << (exact.FLOAT64_BITS - 2 * bits):
        totals = spaces.take("products", (groups, rows, columns), torch.float64)
        torch.bmm(left_integers, right_integers, out=totals)
    else:
        totals = exact.product_of_integers(left_integers, right_integers, bits).contiguous()
    split(
        loops.scale_back, groups * rows, totals.numel(),
        flat(totals), rows, columns, flat(left_back), flat(right_back), flat(result),
    )  # fmt: skip
    return result


Product = Callable[[Tensor, Tensor, int], Tensor]  # as `exact.exact_matmul`, the same bits
_PRODUCTS: dict[str, Product] = {}


def use_product(device_type: str, product: Product) -> None:
    """From now on take `product` for matrices on that type of device; it has proven itself against the reference."""
    _PRODUCTS[device_type] = product


def multiply(left: Tensor, right: Tensor, bits: int) -> Tensor:
    """`exact.exact_matmul`: rule N4, the same bits."""
    if left.device.type in _PRODUCTS:
        return _PRODUCTS[left.device.type](left, right, bits)
    shapes = left.shape[:-2], right.shape[:-2]
    usable = left.device.type == "cpu" and left.numel() and right.numel() and shapes[0] == shapes[1]
    loops = kernels() if usable else None
    if loops is None:
        return exact.exact_matmul(left, right, bits)
    if left.dim() <= 3:
        return _multiply(loops, left, right, bits)
    whole = _multiply(loops, left.flatten(0, -3), right.flatten(0, -3), bits)
    return whole.view(*shapes[0], *whole.shape[1:])


def _sum(loops: ModuleType, values: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Rule N3 over at least one axis of a tensor that is not empty."""
    shape = [1 if axis in axes else size for axis, size in enumerate(values.shape)]
    first, last = axes[0], axes[-1]
    if last - first + 1 != len(axes):  # bring the axes that are summed to the end
        values = values.permute([*(axis for axis in range(values.dim()) if axis not in axes), *axes])
        first, last = values.dim() - len(axes), values.dim() - 1
    values = values.contiguous()
    outer, terms, inner = 1, 1, 1
    for axis, size in enumerate(values.shape):
        if axis < first:
            outer *= size
        elif axis <= last:
            terms *= size
        else:
            inner *= size
    result = torch.empty(outer * inner)
    given = (flat(values), patterns(values))
    if inner == 1:
        split(loops.sum_rows, outer, values.numel(), *given, terms, exact.SUM_BITS, flat(result))
    else:
        pieces = outer * -(-inner // loops.SLICE)
        split(loops.sum_columns, pieces, values.numel(), *given, terms, inner, exact.SUM_BITS, flat(result))
    return result.view(shape) if keep else result.view([size for axis, size in enumerate(shape) if axis not in axes])


def total(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    """`exact.exact_sum`: rule N3, the same bits."""
    terms = 1
    for axis in axes:
        terms *= values.shape[axis]
    usable = axes and values.numel() and terms <= SUM_TERMS_MAX and values.device.type == "cpu"
    loops = kernels() if usable else None
    return exact.exact_sum(values, axes, keep) if loops is None else _sum(loops, values, sorted(axes), keep)


def kernels_for(values: Tensor) -> ModuleType | None:
    """The compiled loops where they gain for one pass over `values` (binary32, as they lie); else None."""
    is_fit = values.device.type == "cpu" and values.numel() >= _SPLIT_ELEMENTS and values.is_contiguous()
    return kernels() if is_fit else None


def greatest_pattern(values: Tensor) -> int:
    """The greatest magnitude among binary32 `values`, as bits: 0x7F800000 for infinity, more for NaN, 0 for none."""
    loops = kernels_for(values)
    if loops is None:
        bits = values.contiguous().view(torch.int32).bitwise_and(0x7FFFFFFF)
        return int(bits.max()) if bits.numel() else 0
    pieces = max(1, min(count_threads(), values.numel() // _SPLIT_ELEMENTS))
    found = torch.zeros(pieces, dtype=torch.int32)
    split(loops.greatest_magnitudes, pieces, values.numel(), patterns(values), flat(found))
    return int(found.max())


def has_nan(values: Tensor) -> bool:
    """Whether one of binary32 `values` is NaN."""
    return greatest_pattern(values) > INFINITY_BITS


def is_finite(values: Tensor) -> bool:
    """Whether none of binary32 `values` is NaN or infinite."""
    return greatest_pattern(values) < INFINITY_BITS
