"""A chain of elementwise operations (rules N1 and N2) in one pass: a small machine whose instructions work on blocks.

A block of every operand is loaded, each instruction runs over it while it is in a core's nearest cache, and only what
is read outside the chain is written to memory. Each instruction rounds on its own as the plain kernel does: fastmath is
off, so nothing is contracted. The elementary functions repeat the binary64 steps of `milon.gpu.elementary` and take its
coefficients as arguments, because machine code kept on disk would not notice that they had changed.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from milon.gpu.kernels_angles import wave64
from milon.gpu.kernels_cpu import INFINITY, compiled, find_magnitude, floats_at, patterns_at, truths_at

BLOCK = 1024  # elements: a register is 4 KiB, and a chain's dozen registers stay in the second cache
FULL, PERIODIC = 0, 1  # how a source is read: as it lies; element (p // repeat) % period
FLOAT, TRUTH = 0, 1  # what a source or a result holds
OPCODES = {
    name: number
    for number, name in enumerate((
        "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "sqrt", "copy", "where",
        "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "truth",
        "exp", "expm1", "log", "tanh", "sigmoid", "erf", "rsqrt", "log1p", "sin", "cos",
    ))
}  # fmt: skip
_ROUND64 = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to an integer, half to even
_ROUND64_BITS = np.int64(0x4338000000000000)
_SIGMOID_NEAR, _SIGMOID_SLOPE = 2.0**-15, 0.25 - 2.0**-29  # as in `elementary`
(
    _ADD, _SUB, _MUL, _DIV, _MAXIMUM, _MINIMUM, _NEG, _ABS, _SQRT, _COPY, _WHERE,
    _EQ, _NE, _LT, _LE, _GT, _GE, _AND, _OR, _NOT, _TRUTH,
    _EXP, _EXPM1, _LOG, _TANH, _SIGMOID, _ERF, _RSQRT, _LOG1P, _SIN, _COS,
) = range(31)  # fmt: skip
_FIRST_BINARY_END, _FIRST_COMPARISON, _FIRST_FUNCTION = _MINIMUM, _EQ, _EXP


@compiled
def _binary(code, o, a, b):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    if code == _ADD:
        for i in range(o.size):
            o[i] = a[i] + b[i]
    elif code == _SUB:
        for i in range(o.size):
            o[i] = a[i] - b[i]
    elif code == _MUL:
        for i in range(o.size):
            o[i] = a[i] * b[i]
    elif code == _DIV:
        for i in range(o.size):
            o[i] = a[i] / b[i]
    elif code == _MAXIMUM:
        for i in range(o.size):
            greater = a[i] if a[i] > b[i] else b[i]
            greater = a[i] + b[i] if (a[i] == 0) & (b[i] == 0) else greater
            o[i] = np.float32(np.nan) if (a[i] != a[i]) | (b[i] != b[i]) else greater
    else:
        for i in range(o.size):
            less = a[i] if a[i] < b[i] else b[i]
            less = -(-a[i] + -b[i]) if (a[i] == 0) & (b[i] == 0) else less
            o[i] = np.float32(np.nan) if (a[i] != a[i]) | (b[i] != b[i]) else less


@compiled
def _unary(code, o, a, b, c):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    if code == _NEG:
        for i in range(o.size):
            o[i] = -a[i]
    elif code == _ABS:
        for i in range(o.size):
            o[i] = abs(a[i])
    elif code == _SQRT:
        for i in range(o.size):
            o[i] = np.sqrt(a[i])
    elif code == _COPY:
        for i in range(o.size):
            o[i] = a[i]
    else:
        for i in range(o.size):
            o[i] = b[i] if a[i] != 0 else c[i]


@compiled
def _compare(code, o, a, b):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    one, zero = np.float32(1.0), np.float32(0.0)
    if code == _EQ:
        for i in range(o.size):
            o[i] = one if a[i] == b[i] else zero
    elif code == _NE:
        for i in range(o.size):
            o[i] = one if a[i] != b[i] else zero
    elif code == _LT:
        for i in range(o.size):
            o[i] = one if a[i] < b[i] else zero
    elif code == _LE:
        for i in range(o.size):
            o[i] = one if a[i] <= b[i] else zero
    elif code == _GT:
        for i in range(o.size):
            o[i] = one if a[i] > b[i] else zero
    elif code == _GE:
        for i in range(o.size):
            o[i] = one if a[i] >= b[i] else zero
    elif code == _AND:
        for i in range(o.size):
            o[i] = one if (a[i] != 0) & (b[i] != 0) else zero
    elif code == _OR:
        for i in range(o.size):
            o[i] = one if (a[i] != 0) | (b[i] != 0) else zero
    elif code == _NOT:
        for i in range(o.size):
            o[i] = one if a[i] == 0 else zero
    else:
        for i in range(o.size):
            o[i] = one if a[i] != 0 else zero


@compiled
def _exp_parts(x, exp, log):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `elementary._exp_parts`; `log` starts with log 2 in two parts and 1 / log 2."""
    shifted = np.float64(x * log[2] + _ROUND64)
    k = shifted - _ROUND64
    r = (x - k * log[0]) - k * log[1]
    p = ((((((exp[11] * r + exp[10]) * r + exp[9]) * r + exp[8]) * r + exp[7]) * r + exp[6]) * r + exp[5]) * r + exp[4]
    p = (((p * r + exp[3]) * r + exp[2]) * r + exp[1]) * r + exp[0]
    scale = np.int64((shifted.view(np.int64) - _ROUND64_BITS + 1023) << 52).view(np.float64)
    return scale, p * r * r + r


@compiled
def _exp64(x, exp, log):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    scale, p = _exp_parts(x, exp, log)
    return (p + 1.0) * scale


@compiled
def _clamp(x, least, greatest):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    x = least if x < least else x
    return greatest if x > greatest else x


@compiled
def _expm1_64(x, exp, log):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    bounded = _clamp(x, -110.0, 90.0)
    scale, p = _exp_parts(bounded, exp, log)
    return x if bounded == 0.0 else (scale - 1.0) + p * scale


@compiled
def _log64(x, log, correction):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    bits = np.float64(x).view(np.int64)
    m = np.int64((bits & np.int64(0xFFFFFFFFFFFFF)) | np.int64(1023 << 52)).view(np.float64)
    large = m > 2 * 0.7071067811865476
    k = np.float64(((bits >> 52) & 0x7FF) - 1023 + np.int64(large))
    f = (m * 0.5 if large else m) - 1.0
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    h = ((((log[13] * z + log[12]) * z + log[11]) * z + log[10]) * z + log[9]) * z + log[8]
    h = ((((h * z + log[7]) * z + log[6]) * z + log[5]) * z + log[4]) * z + log[3]
    low = k * log[1] + s * (half + z * h) + correction
    return k * log[0] - ((half - low) - f)


@compiled
def _log1p_64(x, log):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    safe = x if (x > -1.0) & (x < np.inf) else 0.0
    whole = safe + 1.0
    lost = (safe - (whole - 1.0) if safe < 1.0 else 1.0 - (whole - safe)) / whole
    y = x if safe == 0.0 else _log64(whole, log, lost)
    y = -np.inf if x == -1.0 else y
    y = np.nan if x < -1.0 else y
    return x if (x != x) | (x == np.inf) else y


@compiled
def _erf_near(o, a, small):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """erf where |a| <= 1."""
    for i in range(o.size):
        x = np.float64(a[i])
        near = 1.0 if abs(x) > 1.0 else abs(x)
        at = near * near * 2.0 - 1.0
        h = ((((small[12] * at + small[11]) * at + small[10]) * at + small[9]) * at + small[8]) * at + small[7]
        h = (((((h * at + small[6]) * at + small[5]) * at + small[4]) * at + small[3]) * at + small[2]) * at + small[1]
        o[i] = np.float32((h * at + small[0]) * x)


@compiled
def _erf_series(x, h, power, large):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """1 - erf(x) = h * exp(power) where |x| > 1."""
    for i in range(x.size):
        far = _clamp(abs(x[i]), 1.0, 4.0)
        t = 1.0 / (far + 1.0)
        at = (t - 0.35) * large[16]
        y = ((((large[15] * at + large[14]) * at + large[13]) * at + large[12]) * at + large[11]) * at + large[10]
        y = ((((y * at + large[9]) * at + large[8]) * at + large[7]) * at + large[6]) * at + large[5]
        y = ((((y * at + large[4]) * at + large[3]) * at + large[2]) * at + large[1]) * at + large[0]
        h[i], power[i] = y * t, -(far * far)


@compiled
def _erf(o, a, exp, log, small, large):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The far ones, few as a rule, are done apart."""
    places, x = np.empty(a.size, np.int64), np.empty(a.size, np.float64)
    h, power = np.empty(a.size, np.float64), np.empty(a.size, np.float64)
    count = 0
    for i in range(a.size):
        places[count] = i
        x[count] = a[i]
        count += not abs(a[i]) <= np.float32(1.0)
    _erf_near(o, a, small)
    _erf_series(x[:count], h[:count], power[:count], large)
    for j in range(count):
        h[j] *= _exp64(power[j], exp, log)
    for j in range(count):
        outer = 1.0 if abs(x[j]) > 4.0 else 1.0 - h[j]
        outer = -outer if x[j] < 0.0 else outer
        o[places[j]] = np.float32(outer if x[j] == x[j] else x[j])


@compiled
def _function(code, o, a, exp, log, small, large, waves, turns):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    if code == _EXP:
        for i in range(o.size):
            o[i] = np.float32(_exp64(_clamp(np.float64(a[i]), -110.0, 90.0), exp, log))
    elif code == _EXPM1:
        for i in range(o.size):
            o[i] = np.float32(_expm1_64(np.float64(a[i]), exp, log))
    elif code == _LOG:
        for i in range(o.size):
            x = np.float64(a[i])
            y = _log64(x if (x > 0.0) & (x < np.inf) else 1.0, log, 0.0)
            y = -np.inf if x == 0.0 else y
            y = np.nan if x < 0.0 else y
            o[i] = np.float32(x if (x != x) | (x == np.inf) else y)
    elif code == _TANH:
        for i in range(o.size):
            doubled = _expm1_64(_clamp(np.float64(a[i]), -20.0, 20.0) * 2.0, exp, log)
            o[i] = np.float32(doubled / (doubled + 2.0))
    elif code == _SIGMOID:
        for i in range(o.size):
            x = -abs(np.float64(a[i]))
            e = _exp64(-110.0 if x < -110.0 else x, exp, log)
            y = (e if a[i] < 0 else 1.0) / (e + 1.0)
            o[i] = np.float32(np.float64(a[i]) * _SIGMOID_SLOPE + 0.5 if -x < _SIGMOID_NEAR else y)
    elif code == _ERF:
        _erf(o, a, exp, log, small, large)
    elif code == _LOG1P:
        for i in range(o.size):
            o[i] = np.float32(_log1p_64(np.float64(a[i]), log))
    elif code == _SIN:
        for i in range(o.size):
            o[i] = np.float32(wave64(np.float64(a[i]), np.int64(0), waves, turns))
    elif code == _COS:
        for i in range(o.size):
            o[i] = np.float32(wave64(np.float64(a[i]), np.int64(1), waves, turns))
    else:
        for i in range(o.size):
            x = np.float64(a[i])
            root = np.float64(np.float32(np.sqrt(x)))
            inverse = 1.0 / root
            u = (x - root * root) * inverse * inverse
            y = inverse - inverse * (u * (0.5 - 0.375 * u))
            o[i] = np.float32(y if (x > 0.0) & (x < np.inf) else inverse)


@compiled
def _correct(code, into, of, size, corrections):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Put right the inputs whose binary64 value rounds to the wrong neighbour: rows of (opcode, input, output)."""
    for j in range(corrections.shape[0]):
        if corrections[j, 0] == code:
            given, right = corrections[j, 1], corrections[j, 2]
            o, a = carray(patterns_at(into), size), carray(patterns_at(of), size)
            for i in range(size):
                o[i] = right if a[i] == given else o[i]


@compiled
def _load(into, address, holds, repeat, period, start):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """A block of a source that repeats, or of truth values (as 0 and 1)."""
    place = (start // repeat) % period
    left = repeat - start % repeat
    floats, truths = floats_at(address), truths_at(address)
    done = 0
    while done < into.size:
        run = min(period - place if repeat == 1 else left, into.size - done)
        if repeat > 1:
            value = floats[place] if holds == FLOAT else np.float32(truths[place])
            for k in range(done, done + run):
                into[k] = value
            place = place + 1 if place + 1 < period else 0
            left = repeat
        else:
            if holds == FLOAT:
                for k in range(run):
                    into[done + k] = floats[place + k]
            else:
                for k in range(run):
                    into[done + k] = np.float32(truths[place + k])
            place = 0
        done += run


@compiled
def _store_truths(address, start, block):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    into = carray(truths_at(address + start), block.size)
    for i in range(block.size):
        into[i] = np.uint8(block[i] != 0)


@compiled
def run_chain(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, count, scratch, base, stride, loads, code, stores, watched, nans, corrections, exp, log, small, large,
    waves, turns,
):  # fmt: skip
    """Blocks first to last of a chain over `count` elements.

    Value v of the chain lies at base[v] + stride[v] * p bytes, or, where base[v] is negative, in register -1 - base[v].
    The registers are `scratch` rows of this range's own. loads: rows of (value, address, holds, repeat, period). code:
    rows of (opcode, result and three values). stores: rows of (value, address) of truth values. nans[j] is set where
    value watched[j] holds NaN.
    """
    registers = np.zeros((scratch + 1, BLOCK), np.float32)
    own = registers.ctypes.data
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        at = np.empty(base.size, np.int64)
        for v in range(base.size):
            at[v] = base[v] + stride[v] * start if base[v] >= 0 else own + (-1 - base[v]) * (BLOCK * 4)
        for j in range(loads.shape[0]):
            into = carray(floats_at(at[loads[j, 0]]), size)
            if loads[j, 4] > 1 or block == first:  # a single element stays in its register
                _load(into, loads[j, 1], loads[j, 2], loads[j, 3], loads[j, 4], start)
        for j in range(code.shape[0]):
            o, a = carray(floats_at(at[code[j, 1]]), size), carray(floats_at(at[code[j, 2]]), size)
            b, c = carray(floats_at(at[code[j, 3]]), size), carray(floats_at(at[code[j, 4]]), size)
            if code[j, 0] <= _FIRST_BINARY_END:
                _binary(code[j, 0], o, a, b)
            elif code[j, 0] < _FIRST_COMPARISON:
                _unary(code[j, 0], o, a, b, c)
            elif code[j, 0] < _FIRST_FUNCTION:
                _compare(code[j, 0], o, a, b)
            else:
                _function(code[j, 0], o, a, exp, log, small, large, waves, turns)
                _correct(code[j, 0], at[code[j, 1]], at[code[j, 2]], size, corrections)
        for j in range(stores.shape[0]):
            _store_truths(stores[j, 1], start, carray(floats_at(at[stores[j, 0]]), size))
        for j in range(watched.size):
            if find_magnitude(carray(patterns_at(at[watched[j]]), size)) > INFINITY:
                nans[j] = 1
    return registers[scratch, 0]  # reads the registers once more, so that they are not given back before this
