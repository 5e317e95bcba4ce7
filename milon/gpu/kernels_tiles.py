"""The innermost loops of products on a CPU, written in the compiler's own terms as vectors: tiles of sums of products.

An operand is a panel of pairs: for each pair of terms, the two 16-bit integers of every row (or column) side by side in
one 32-bit word. Rows may also lie one after the other, each a line of words. A tile of sums is held in registers, and
must stay within 32 bits; `kernels_pairs` sees to that. Multiply and add of vectors are right on any processor; where
there are instructions for products of pairs (AVX2, AVX512-VNNI) the compiler chooses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic


def _is_wide() -> bool:
    """Whether the processor has registers of 512 bits for 16-bit integers."""
    try:
        return bool(binding.get_host_cpu_features().get("avx512bw", False))
    except RuntimeError:  # llvmlite does not know this processor
        return False


ROWS = 13 if _is_wide() else 6  # of a tile: with `_VECTORS` to a row they fill the processor's registers
LANES = 16 if _is_wide() else 8  # 32-bit sums in a register
_VECTORS = 2
COLUMNS = LANES * _VECTORS
TILE = ROWS * COLUMNS
LINE = 528  # words of a row that lies on its own: 512 pairs, and room for one vector more
_WORD, _INT32, _FLOAT64 = ir.IntType(64), ir.IntType(32), ir.DoubleType()
_SUM = ir.VectorType(_INT32, LANES)
_PAIRS = ir.VectorType(ir.IntType(16), 2 * LANES)
_PRODUCTS = ir.VectorType(_INT32, 2 * LANES)
_WIDE, _NARROW = ir.VectorType(_FLOAT64, LANES), ir.VectorType(ir.FloatType(), LANES)


def _at(builder: Any, base: Any, place: Any, kind: Any) -> Any:
    """A pointer to `kind`, `place` elements of base's own type further on."""
    moved = builder.gep(base, [_WORD(place) if isinstance(place, int) else place])
    return builder.bitcast(moved, kind.as_pointer())


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of `kind` with `value` in every lane."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, _INT32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, kind.count), None))


def _load(builder: Any, base: Any, place: Any, align: int) -> Any:
    loaded = builder.load(builder.gep(base, [place]))
    loaded.align = align
    return loaded


def _pick(builder: Any, vector: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _sums_of_pairs(builder: Any, left: Any, right: Any) -> Any:
    one, other = (builder.sext(builder.bitcast(side, _PAIRS), _PRODUCTS) for side in (left, right))
    products = builder.mul(one, other)
    even, odd = (_pick(builder, products, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(even, odd)


def _emit_pair(builder: Any, left: Any, right: Any, pair: Any, sums: list[Any], apart: tuple[int, int]) -> list[Any]:
    """`sums` and the products of one more pair of terms; `apart` are the words between pairs and between rows."""
    word = ir.IntType(64)
    columns = [
        _load(builder, right, builder.add(builder.mul(pair, word(_VECTORS)), word(place)), 4)
        for place in range(_VECTORS)
    ]
    found = []
    for row in range(ROWS):
        place = builder.add(builder.mul(pair, word(apart[0])), word(row * apart[1]))
        scalar = _load(builder, left, place, 4)
        spread = _spread(builder, scalar, _SUM)
        for place, column in enumerate(columns):
            found.append(builder.add(sums[row * _VECTORS + place], _sums_of_pairs(builder, spread, column)))
    return found


def _emit_tile(context: Any, builder: Any, arguments: Any, apart: tuple[int, int]) -> Any:
    left, right, pairs, totals = arguments
    left = builder.inttoptr(left, _INT32.as_pointer())
    right, totals = builder.inttoptr(right, _SUM.as_pointer()), builder.inttoptr(totals, _WIDE.as_pointer())
    word = ir.IntType(64)
    before, loop, after = builder.block, builder.append_basic_block("pair"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(word)
    sums = [builder.phi(_SUM) for _ in range(ROWS * _VECTORS)]
    found = _emit_pair(builder, left, right, pair, sums, apart)
    following = builder.add(pair, word(1))
    for entry, start, going in (
        (pair, word(0), following),
        *((s, _SUM(None), f) for s, f in zip(sums, found, strict=True)),
    ):
        entry.add_incoming(start, before)
        entry.add_incoming(going, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    builder.position_at_end(after)
    for place, total in enumerate(found):
        held = _load(builder, totals, word(place), 8)
        stored = builder.store(builder.fadd(held, builder.sitofp(total, _WIDE)), builder.gep(totals, [word(place)]))
        stored.align = 8
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def add_products(context: Any, left: Any, right: Any, pairs: Any, totals: Any) -> tuple[Any, Callable[..., Any]]:
    """totals [ROWS, COLUMNS] (binary64) += left [pairs, ROWS] times right [pairs, COLUMNS]; all by address.

    At least one pair, and at most what keeps sums within 32 bits.
    """
    return types.void(*[types.int64] * 4), lambda own, builder, _, given: _emit_tile(own, builder, given, (ROWS, 1))


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def add_line_products(context: Any, left: Any, right: Any, pairs: Any, totals: Any) -> tuple[Any, Callable[..., Any]]:
    """The same where left is [ROWS, LINE]."""
    return types.void(*[types.int64] * 4), lambda own, builder, _, given: _emit_tile(own, builder, given, (1, LINE))


def _emit_lanes(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    source, offsets, masks, count, into = arguments
    word, none = ir.IntType(64), ir.Constant(_PAIRS, None)
    offsets, masks = (
        builder.inttoptr(given, ir.IntType(size).as_pointer()) for given, size in ((offsets, 64), (masks, 32))
    )
    before, loop, after = builder.block, builder.append_basic_block("run"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", count, word(0)), loop, after)
    builder.position_at_end(loop)
    run, held = builder.phi(word), builder.phi(_PAIRS)
    place = builder.add(source, builder.mul(_load(builder, offsets, run, 8), word(2)))
    found = _load(builder, builder.inttoptr(place, _PAIRS.as_pointer()), word(0), 2)
    mask = builder.load(builder.gep(masks, [run]))
    if 2 * LANES < 32:
        mask = builder.trunc(mask, ir.IntType(2 * LANES))
    mixed = builder.select(builder.bitcast(mask, ir.VectorType(ir.IntType(1), 2 * LANES)), found, held)
    following = builder.add(run, word(1))
    for phi, start, going in ((run, word(0), following), (held, none, mixed)):
        phi.add_incoming(start, before)
        phi.add_incoming(going, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    result = builder.phi(_PAIRS)
    result.add_incoming(none, before)
    result.add_incoming(mixed, loop)
    builder.store(result, builder.inttoptr(into, _PAIRS.as_pointer())).align = 2
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def gather_lanes(
    context: Any, source: Any, offsets: Any, masks: Any, count: Any, into: Any
) -> tuple[Any, Callable[..., Any]]:
    """A vector of 16-bit integers from `count` runs of them; all by address.

    Lane k comes from source + 2 * (offsets[run] + k) where bit k of masks[run] is set, and is 0 where none is. What
    lies up to a vector before and after a run is read as well.
    """
    return types.void(*[types.int64] * 5), _emit_lanes


def _emit_fit(builder: Any, words: Any, pairs: Any, width: int, limit: int) -> Any:
    before, loop, after = builder.block, builder.append_basic_block("pair"), builder.append_basic_block("after")
    count, none, ones = -(-width // LANES), ir.Constant(_SUM, None), ir.Constant(_PAIRS, [1] * 2 * LANES)
    words = builder.inttoptr(words, _INT32.as_pointer())
    builder.branch(loop)
    builder.position_at_end(loop)
    pair, held = builder.phi(_WORD), [builder.phi(_SUM) for _ in range(count)]
    start, most, sums = builder.mul(pair, _WORD(width)), none, []
    for place, total in enumerate(held):
        at = _at(builder, words, builder.add(start, _WORD(place * LANES)), _PAIRS)
        given = builder.load(at, align=4)
        is_less = builder.icmp_signed("<", given, ir.Constant(_PAIRS, None))
        size = builder.select(is_less, builder.sub(ir.Constant(_PAIRS, None), given), given)
        sums.append(builder.add(total, _sums_of_pairs(builder, size, ones)))
        most = builder.select(builder.icmp_signed(">", sums[-1], most), sums[-1], most)
    is_over = builder.icmp_signed(">", most, ir.Constant(_SUM, [limit] * LANES))
    is_any = builder.icmp_unsigned("!=", builder.bitcast(is_over, ir.IntType(LANES)), ir.IntType(LANES)(0))
    following = builder.add(pair, _WORD(1))
    is_last = builder.or_(is_any, builder.icmp_signed(">=", following, pairs))
    for phi, first, going in ((pair, _WORD(0), following), *((h, none, s) for h, s in zip(held, sums, strict=True))):
        phi.add_incoming(first, before)
        phi.add_incoming(going, loop)
    builder.cbranch(is_last, after, loop)
    builder.position_at_end(after)
    return builder.select(builder.and_(is_any, builder.icmp_signed(">", pair, _WORD(0))), pair, following)


def make_fit(width: int, limit: int) -> Any:
    """A function that counts the pairs of a panel of `width` whose magnitudes add up to at most `limit` anywhere."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def fit(context: Any, words: Any, pairs: Any) -> tuple[Any, Callable[..., Any]]:
        """At least one, at most `pairs`; the words by address. Up to a vector after them is read, and may count."""

        def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
            return _emit_fit(builder, given[0], given[1], width, limit)

        return types.int64(types.int64, types.int64), generate

    return fit


def _emit_results(context: Any, builder: Any, arguments: Any, digits: int) -> Any:
    totals, rows, columns = (builder.inttoptr(given, _FLOAT64.as_pointer()) for given in arguments[:3])
    result, stride = builder.inttoptr(arguments[3], ir.FloatType().as_pointer()), arguments[4]
    scales = [builder.load(_at(builder, columns, v * LANES, _WIDE), align=8) for v in range(_VECTORS)]
    for r in range(ROWS):
        scale = _spread(builder, builder.load(_at(builder, rows, r, _FLOAT64), align=8), _WIDE)
        for v in range(_VECTORS):
            places = [digit * TILE + r * COLUMNS + v * LANES for digit in range(digits)]
            held = [builder.load(_at(builder, totals, place, _WIDE), align=8) for place in places]
            total = held[0]
            if digits == 3:  # exact: each sum is within 2^53 where the total is
                cross = builder.fsub(builder.fsub(held[2], held[0]), held[1])
                cross = builder.fmul(cross, ir.Constant(_WIDE, [2048.0] * LANES))
                upper = builder.fmul(held[0], ir.Constant(_WIDE, [4194304.0] * LANES))
                total = builder.fadd(upper, builder.fadd(cross, held[1]))
            total = builder.fadd(total, ir.Constant(_WIDE, [0.0] * LANES))
            total = builder.fmul(builder.fmul(total, scale), scales[v])
            at = builder.add(builder.mul(stride, _WORD(r)), _WORD(v * LANES))
            builder.store(builder.fptrunc(total, _NARROW), _at(builder, result, at, _NARROW), align=4)
    return context.get_dummy_value()


def _scale_of(digits: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def scale(context: Any, totals: Any, rows: Any, columns: Any, result: Any, stride: Any) -> Any:
        """A tile of totals as binary32, each rounded once, to rows `stride` apart; by address, scales in binary64."""
        return types.void(*[types.int64] * 5), lambda own, builder, _, given: _emit_results(own, builder, given, digits)

    return scale


def _transpose_of(width: int) -> Any:
    """Rows of words, `LANES` of them, as columns: `LANES` rows of the first `width` words of each."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def transpose(context: Any, given: Any, step: Any, into: Any, stride: Any) -> Any:
        """Addresses of the first words, and the distances in words of the next rows."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            source, target = (builder.inttoptr(arguments[n], _INT32.as_pointer()) for n in (0, 2))
            rows = []
            for r in range(LANES):
                at = builder.mul(arguments[1], ir.Constant(_WORD, r))
                rows.append(builder.load(_at(builder, source, at, _SUM), align=4))
            half, taken = LANES // 2, LANES
            mixes = [
                ir.Constant(ir.VectorType(_INT32, LANES), [side * half + n // 2 + n % 2 * LANES for n in range(LANES)])
                for side in (0, 1)
            ]
            while taken > 1:  # each turn interleaves row n with row n + LANES / 2
                rows = [builder.shuffle_vector(rows[n // 2], rows[n // 2 + half], mixes[n % 2]) for n in range(LANES)]
                taken //= 2
            kind = ir.VectorType(_INT32, width)
            first = ir.Constant(ir.VectorType(_INT32, width), list(range(width)))
            for r, row in enumerate(rows):
                at = builder.mul(arguments[3], ir.Constant(_WORD, r))
                part = builder.shuffle_vector(row, ir.Constant(_SUM, ir.Undefined), first)
                builder.store(part, _at(builder, target, at, kind), align=4)
            return _context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return transpose


def _copy_of(width: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]  # numba has no types
    def copy(context: Any, given: Any, into: Any) -> Any:
        """`width` words, by address."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = ir.VectorType(_INT32, width).as_pointer()
            source, target = (builder.inttoptr(address, kind) for address in arguments)
            builder.store(builder.load(source, align=4), target, align=4)
            return _context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return copy


scale_one, scale_three = _scale_of(1), _scale_of(3)  # for M = 13 and for M = 21
transpose_rows, transpose_columns = _transpose_of(ROWS), _transpose_of(LANES)
copy_row, copy_columns = _copy_of(ROWS), _copy_of(COLUMNS)
