"""Tiles of matrix products of small integers (rule N4) on x86 vector units, written for the compiler as vectors.

One instruction multiplies two pairs of int16 in each 32-bit lane and adds both products. With M = 13 an element is one
int16, and a lane holds at most 30 products of 2^26 before its upper half is moved to a second one. With M = 21 an
element is high * 2^11 + low; high, low and high + low are multiplied apart (Karatsuba): three planes. All is integer
arithmetic until the total, which binary64 holds exactly, is scaled by powers of two and rounded once to binary32.

A packed operand holds panels of `ROWS` rows (of the left) or `COLUMNS` columns (of the right), padded with zeros; a
panel holds, plane after plane and pair of terms after pair of terms, one 32-bit word for each row or column.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic


def _find_lanes() -> int:
    """32-bit lanes of the vectors of this processor that multiply pairs of int16; 0 where there are none."""
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # llvmlite does not know this processor
        return 0
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES:  # loops are compiled for another processor than this
        return 0
    return 16 if features.get("avx512bw") else 8 if features.get("avx2") else 0


LANES = _find_lanes()
ROWS = {16: 12, 8: 4, 0: 1}[LANES]  # of a tile; with two vectors of columns its sums leave registers for the operands
_VECTORS = 2
COLUMNS = _VECTORS * (LANES or 1)
_PAIRS_MAX = {1: 15, 3: 255}  # by planes, between moves of upper halves: sums stay below 2^31 - 2^16
_INSTRUCTION = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
_INT32, _INT64, _FLOAT64 = ir.IntType(32), ir.IntType(64), ir.DoubleType()
_WORDS, _HALVES = ir.VectorType(_INT32, LANES or 1), ir.VectorType(ir.IntType(16), 2 * (LANES or 1))
_WIDE, _NARROW = ir.VectorType(_FLOAT64, LANES or 1), ir.VectorType(ir.FloatType(), LANES or 1)


def _at(builder: Any, base: Any, place: Any, kind: Any) -> Any:
    """A pointer to `kind`, `place` elements of base's own type further on."""
    moved = builder.gep(base, [ir.Constant(_INT64, place) if isinstance(place, int) else place])
    return builder.bitcast(moved, kind.as_pointer())


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of `kind` with `value` in every lane."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, kind.count), None))


def _emit_pair(builder: Any, sums: list[Any], left: Any, right: Any) -> list[Any]:
    """One pair of terms: `sums` (by row and vector) plus the products of the words at `left` and `right`."""
    name = _INSTRUCTION[LANES]
    kind = ir.FunctionType(_WORDS, [_HALVES, _HALVES])
    multiply = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    columns = [builder.load(_at(builder, right, v * LANES, _HALVES), align=4) for v in range(_VECTORS)]
    made: list[Any] = []
    for r in range(ROWS):
        word = builder.load(_at(builder, left, r, _INT32), align=4)
        row = builder.bitcast(_spread(builder, word, _WORDS), _HALVES)
        for column in columns:
            made.append(builder.add(sums[len(made)], builder.call(multiply, [row, column])))
    return made


def _emit_moves(builder: Any, sums: list[Any], high: Any) -> list[Any]:
    """Adds sum >> 16 to `high`; what is left of each sum."""
    for place, total in enumerate(sums):
        address = _at(builder, high, place * LANES, _WORDS)
        moved = builder.ashr(total, ir.Constant(_WORDS, [16] * LANES))
        builder.store(builder.add(builder.load(address, align=4), moved), address, align=4)
    return [builder.and_(total, ir.Constant(_WORDS, [0xFFFF] * LANES)) for total in sums]


def _link(block: Any, phis: list[Any], values: list[Any]) -> None:
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, block)


def _emit_sums(builder: Any, left: Any, right: Any, pairs: Any, high: Any, pairs_max: int) -> list[Any]:
    """The sums over all pairs of one plane of a tile; what left them on the way is added to `high`."""
    count = ROWS * _VECTORS
    names = ("outer", "inner", "after", "moving", "done")
    entry, zero, none = builder.block, ir.Constant(_WORDS, None), ir.Constant(_INT64, 0)
    outer, inner, after, moving, done = (builder.append_basic_block(name) for name in names)
    kinds = [_INT64, left.type, right.type, *[_WORDS] * count]
    builder.branch(outer)
    builder.position_at_end(outer)
    given = [builder.phi(kind) for kind in kinds]
    most = ir.Constant(_INT64, pairs_max)
    some = builder.select(builder.icmp_signed("<", given[0], most), given[0], most)
    builder.branch(inner)
    builder.position_at_end(inner)
    now = [builder.phi(kind) for kind in kinds]
    made = _emit_pair(builder, now[3:], now[1], now[2])
    moved = [builder.gep(now[n], [ir.Constant(_INT64, words)]) for n, words in ((1, ROWS), (2, COLUMNS))]
    then = [builder.sub(now[0], ir.Constant(_INT64, 1)), *moved]
    builder.cbranch(builder.icmp_signed(">", then[0], none), inner, after)
    _link(outer, now, [some, *given[1:]])
    _link(inner, now, [*then, *made])
    builder.position_at_end(after)
    rest = builder.sub(given[0], some)
    builder.cbranch(builder.icmp_signed(">", rest, none), moving, done)
    builder.position_at_end(moving)
    kept = _emit_moves(builder, made, high)
    builder.branch(outer)
    _link(entry, given, [pairs, left, right, *[zero] * count])
    _link(moving, given, [rest, *then[1:], *kept])
    builder.position_at_end(done)
    return made


def _emit_total(builder: Any, upper: Any, lower: Any) -> Any:
    """upper * 2^16 + lower as binary64, which holds it exactly."""
    wide = builder.fmul(builder.sitofp(upper, _WIDE), ir.Constant(_WIDE, [65536.0] * LANES))
    return builder.fadd(wide, builder.sitofp(lower, _WIDE))


def _emit_joined(builder: Any, totals: list[Any]) -> Any:
    """The total of products from its planes."""
    if len(totals) == 1:
        return totals[0]
    cross = builder.fsub(builder.fsub(totals[2], totals[0]), totals[1])
    cross = builder.fmul(cross, ir.Constant(_WIDE, [2048.0] * LANES))
    upper = builder.fmul(totals[0], ir.Constant(_WIDE, [4194304.0] * LANES))
    return builder.fadd(upper, builder.fadd(cross, totals[1]))  # each sum is within 2^53 where the total is


def _emit_results(builder: Any, sums: Any, scales: tuple[Any, Any], result: Any, stride: Any, planes: int) -> None:
    """Every total of a tile on the scales of its row and column, rounded once, to rows `stride` apart.

    sums: by plane, upper then lower, row and vector.
    """
    columns = [builder.load(_at(builder, scales[1], v * LANES, _WIDE), align=8) for v in range(_VECTORS)]
    for r in range(ROWS):
        scale = _spread(builder, builder.load(_at(builder, scales[0], r, _FLOAT64), align=8), _WIDE)
        start = builder.mul(stride, ir.Constant(_INT64, r))
        for v in range(_VECTORS):
            totals = []
            for plane in range(planes):
                places = [(((2 * plane + half) * ROWS + r) * _VECTORS + v) * LANES for half in (0, 1)]
                halves = [builder.load(_at(builder, sums, place, _WORDS), align=4) for place in places]
                totals.append(_emit_total(builder, *halves))
            total = builder.fmul(builder.fmul(_emit_joined(builder, totals), scale), columns[v])
            at = builder.add(start, ir.Constant(_INT64, v * LANES))
            builder.store(builder.fptrunc(total, _NARROW), _at(builder, result, at, _NARROW), align=4)


def _emit_tile(builder: Any, given: list[Any], planes: int) -> None:
    left, right, pairs, space, rows, columns, result, stride = given
    size = ROWS * COLUMNS
    for plane in range(planes):
        upper = builder.gep(space, [ir.Constant(_INT64, 2 * plane * size)])
        places = [builder.mul(pairs, ir.Constant(_INT64, plane * words)) for words in (ROWS, COLUMNS)]
        panels = [builder.gep(side, [place]) for side, place in zip((left, right), places, strict=True)]
        for place in range(ROWS * _VECTORS):
            builder.store(ir.Constant(_WORDS, None), _at(builder, upper, place * LANES, _WORDS), align=4)
        for place, total in enumerate(_emit_sums(builder, panels[0], panels[1], pairs, upper, _PAIRS_MAX[planes])):
            builder.store(total, _at(builder, upper, size + place * LANES, _WORDS), align=4)
    _emit_results(builder, space, (rows, columns), result, stride, planes)


def _tile_of(planes: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]  # numba ships no types
    def tile(
        context: Any, left: Any, right: Any, pairs: Any, sums: Any, rows: Any, columns: Any, to: Any, by: Any
    ) -> Any:
        """Addresses: panels, space for sums, scales of rows and of columns, the result; the length of its rows."""

        def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
            words, wide, narrow = _INT32.as_pointer(), _FLOAT64.as_pointer(), ir.FloatType().as_pointer()
            kinds = (words, words, None, words, wide, wide, narrow, None)
            ready = [builder.inttoptr(one, kind) if kind else one for one, kind in zip(given, kinds, strict=True)]
            _emit_tile(builder, ready, planes)
            return _context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return tile


def _transpose_of(width: int) -> Any:
    """Rows of words, `LANES` of them, as columns: `LANES` rows of the first `width` words of each."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba ships no types
    def transpose(context: Any, given: Any, step: Any, into: Any, stride: Any) -> Any:
        """Addresses of the first words, and the distances in words of the next rows."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            source, target = (builder.inttoptr(arguments[n], _INT32.as_pointer()) for n in (0, 2))
            rows = []
            for r in range(LANES):
                at = builder.mul(arguments[1], ir.Constant(_INT64, r))
                rows.append(builder.load(_at(builder, source, at, _WORDS), align=4))
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
                at = builder.mul(arguments[3], ir.Constant(_INT64, r))
                part = builder.shuffle_vector(row, ir.Constant(_WORDS, ir.Undefined), first)
                builder.store(part, _at(builder, target, at, kind), align=4)
            return _context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return transpose


SUMS = 6 * ROWS * COLUMNS  # words of space that a tile takes
tile_one, tile_three = _tile_of(1), _tile_of(3)  # for M = 13 and for M = 21
transpose_rows, transpose_columns = _transpose_of(ROWS), _transpose_of(LANES or 1)
