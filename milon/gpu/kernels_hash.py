"""Compiled loops over bits that are told apart: SHA-256 (FIPS 180-4) of sixteen chunks side by side, and fingerprints.

A chunk's digest is one long chain of steps, and a processor without instructions for SHA-256 takes them one by one.
Different chunks do not depend on each other, so each lane of a vector follows one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from milon.gpu.kernels_cpu import compiled, patterns_at

LANES = 16  # chunks side by side: the 32-bit words of a vector of AVX-512
_BLOCK = 16  # words of 32 bits that one compression takes in
_ROUNDS = 64
_VECTOR = ir.VectorType(ir.IntType(32), LANES)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_NAN = np.int32(0x7FC00000)
PIECE = 1 << 15  # elements whose places fit 32 bits with room, so that a product is one instruction


def _cube_root(number: int) -> int:
    """The greatest integer whose third power is at most `number`."""
    root = 0
    for bit in reversed(range(number.bit_length() // 3 + 1)):
        if (root | 1 << bit) ** 3 <= number:
            root |= 1 << bit
    return root


_PRIMES = [number for number in range(2, 312) if all(number % divisor for divisor in range(2, isqrt(number) + 1))]
_CONSTANTS = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in _PRIMES]  # FIPS 180-4, section 4.2.2
START = np.array([isqrt(prime << 64) & 0xFFFFFFFF for prime in _PRIMES[:8]], np.uint32)  # section 5.3.3


def _of(number: int) -> Any:
    return ir.Constant(_VECTOR, [number] * LANES)


class _Words:
    """Emits FIPS 180-4's functions of words (section 4.1.2), a vector of them at a time."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def add(self, first: Any, *more: Any) -> Any:
        for other in more:
            first = self.builder.add(first, other)
        return first

    def turn(self, word: Any, by: int) -> Any:
        return self.builder.or_(self.builder.lshr(word, _of(by)), self.builder.shl(word, _of(32 - by)))

    def sigma(self, word: Any, *turns: int) -> Any:
        """The exclusive or of three turns of a word."""
        one, two, three = (self.turn(word, by) for by in turns)
        return self.builder.xor(self.builder.xor(one, two), three)

    def small_sigma(self, word: Any, one: int, two: int, shift: int) -> Any:
        """The same where the last is a shift."""
        turned = self.builder.xor(self.turn(word, one), self.turn(word, two))
        return self.builder.xor(turned, self.builder.lshr(word, _of(shift)))

    def choose(self, e: Any, f: Any, g: Any) -> Any:
        return self.builder.xor(g, self.builder.and_(e, self.builder.xor(f, g)))

    def majority(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.or_(self.builder.and_(a, b), self.builder.and_(c, self.builder.or_(a, b)))

    def place(self, base: Any, number: int) -> Any:
        return self.builder.gep(base, [ir.IntType(64)(number)])

    def load(self, base: Any, number: int) -> Any:
        loaded = self.builder.load(self.place(base, number))
        loaded.align = 4
        return loaded


def _emit_compression(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Section 6.2.2 with the schedule's last sixteen words kept at hand."""
    state, block = (builder.inttoptr(address, _VECTOR.as_pointer()) for address in arguments)
    words = _Words(builder)
    schedule = [words.load(block, place) for place in range(_BLOCK)]
    before = [words.load(state, place) for place in range(8)]
    a, b, c, d, e, f, g, h = before
    for number in range(_ROUNDS):
        place = number % _BLOCK
        if number >= _BLOCK:
            late = words.small_sigma(schedule[(number - 2) % _BLOCK], 17, 19, 10)
            early = words.small_sigma(schedule[(number - 15) % _BLOCK], 7, 18, 3)
            schedule[place] = words.add(late, schedule[(number - 7) % _BLOCK], early, schedule[place])
        sums = words.sigma(e, 6, 11, 25), words.choose(e, f, g), _of(_CONSTANTS[number]), schedule[place]
        first = words.add(h, *sums)
        second = words.add(words.sigma(a, 2, 13, 22), words.majority(a, b, c))
        a, b, c, d, e, f, g, h = words.add(first, second), a, b, c, words.add(d, first), e, f, g
    for place, (old, new) in enumerate(zip(before, (a, b, c, d, e, f, g, h), strict=True)):
        stored = builder.store(builder.add(old, new), words.place(state, place))
        stored.align = 4
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def _compress(context: Any, state: Any, block: Any) -> tuple[Any, Callable[..., Any]]:
    """One block of every lane into the state [8, LANES]; both by address."""
    return types.void(types.int64, types.int64), _emit_compression


@compiled
def digest_chunks(words, begins, blocks, state):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into state [8, LANES]: SHA-256 of `blocks` blocks in each lane, from words[begins[lane]] (little-endian) on."""
    block = np.zeros(_BLOCK * LANES, np.uint32)
    for place in range(8):
        state[place * LANES : (place + 1) * LANES] = START[place]
    for number in range(blocks):
        for lane in range(LANES):
            begin = begins[lane] + number * _BLOCK
            given = words[begin : begin + _BLOCK]
            for place in range(_BLOCK):
                word = given[place]
                swapped = (word >> np.uint32(8)) & np.uint32(0xFF00) | (word << np.uint32(8)) & np.uint32(0xFF0000)
                block[place * LANES + lane] = (word >> np.uint32(24)) | swapped | (word << np.uint32(24))
        _compress(state.ctypes.data, block.ctypes.data)
    block[:] = 0
    block[:LANES] = np.uint32(0x80000000)  # section 5.1.1: a one, zeros, and the length in bits
    bits = np.int64(blocks) * 512
    block[14 * LANES : 15 * LANES] = np.uint32(bits >> 32)
    block[15 * LANES :] = np.uint32(bits & 0xFFFFFFFF)
    _compress(state.ctypes.data, block.ctypes.data)


@compiled
def add_fingerprints(first, last, addresses, sizes, positions, sums):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """For pieces first to last of at most 2^15 elements: the sum of b_p * (2p + 1) modulo 2^64, p from a piece's
    position on; a piece lies at its address, in whatever tensor that is."""
    for piece in range(first, last):
        given = carray(patterns_at(addresses[piece]), (sizes[piece],), np.int32)
        plain, placed = np.int64(0), np.int64(0)
        for k in range(given.size):
            b = _NAN if (given[k] & _MAGNITUDE) > _INFINITY else given[k]
            plain += np.int64(b)
            placed += np.int64(b) * np.int64(np.int32(k))
        sums[piece] = 2 * placed + plain * (2 * positions[piece] + 1)
