"""A test that cannot fail proves nothing: each mutant breaks one rule, and the simulation must notice.

All of them take minutes (`make mutants`); here those of the design's list, and that all still fit the source.
"""

import pytest

from tests.simulation.mutant_list import MUTANTS, Mutant
from tests.simulation.mutants import find_misfits, judge

QUICK = (
    "votes are not written down",
    "FINALIZE after NULLIFY",
    "a quorum of half",
    "skipping without a nullification",
    "signatures of votes are not checked",
)


def _find(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_the_mutant_is_killed(name: str) -> None:
    assert judge(_find(name), seeds=12).killer


def test_every_mutant_fits_the_source() -> None:
    assert {mutant.name: find_misfits(mutant) for mutant in MUTANTS if find_misfits(mutant)} == {}


def test_the_unbroken_product_survives() -> None:
    """What kills the mutants is the broken rule: the same seeds find nothing otherwise (see also `test_campaign`)."""
    assert judge(Mutant("none", (), ("none", "forger")), seeds=2).killer == ""
