"""Mutated programs are refused with a reason or run within their budget: a sample of the campaign."""

from __future__ import annotations

from bench.fuzz_programs import campaign


def test_a_sample_of_mutants() -> None:
    tally = campaign(250, 1_000_000, ["perceptron", "convolution-net", "autoencoder", "unet-nearest"])
    assert tally.ran + tally.refused.total() == 250
    assert tally.ran > 10 and len(tally.refused) > 5
