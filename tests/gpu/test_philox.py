"""Philox against the known answers of its authors, and draws that depend on their key alone."""

from __future__ import annotations

import dataclasses

import torch

from milon.gpu.philox import draw_uniform, philox
from milon.pol.program import StepKey

CPU = torch.device("cpu")
KEY = StepKey(bytes(range(32)), 1, 2, 3)
ANSWERS = [  # Random123, kat_vectors: philox4x32, 10 rounds
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def test_known_answers() -> None:
    for counter, key, answer in ANSWERS:
        low, high = words(key)
        found = philox(torch.tensor(words(counter)).unsqueeze(1), (low, high))
        assert found.squeeze(1).tolist() == words(answer)


def test_draws_depend_on_every_part_of_the_key() -> None:
    first = draw_uniform(KEY, 0, (64,), CPU)
    assert torch.equal(first, draw_uniform(KEY, 0, (64,), CPU))
    others = [
        dataclasses.replace(KEY, job_seed=bytes(32)),
        dataclasses.replace(KEY, round=2),
        dataclasses.replace(KEY, trainer=3),
        dataclasses.replace(KEY, step=4),
    ]
    for key in others:
        assert not torch.equal(first, draw_uniform(key, 0, (64,), CPU))
    assert not torch.equal(first, draw_uniform(KEY, 1, (64,), CPU))


def test_an_element_depends_on_its_place_alone() -> None:
    long = draw_uniform(KEY, 0, (1001,), CPU)
    assert torch.equal(draw_uniform(KEY, 0, (7, 13), CPU).reshape(-1), long[:91])
    assert torch.equal(draw_uniform(KEY, 0, (), CPU), long[0])


def test_draws_are_uniform_multiples_of_two_to_the_minus_24() -> None:
    drawn = draw_uniform(KEY, 5, (40_000,), CPU)
    assert float(drawn.min()) >= 0.0 and float(drawn.max()) < 1.0
    assert torch.equal(drawn * 2.0**24, (drawn * 2.0**24).round())
    counts = torch.histc(drawn, 16, 0.0, 1.0)
    assert float((counts - 2500).abs().max()) < 6 * (2500 * 15 / 16) ** 0.5
