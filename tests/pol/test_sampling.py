"""Committees and samples are drawn by chance that nobody chooses and everybody can check."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, ClaimId, Digest
from milon.base.signing import SecretKey
from milon.pol.sampling import draw_committee, draw_sample, verify_sample

CLAIM = ClaimId(b"\x01" * 32)
BEACON = Digest(b"\x02" * 32)
KEY = SecretKey(b"\x03" * 32)


def _candidates(powers: list[int]) -> list[tuple[AccountId, int]]:
    return [(AccountId(bytes([number]) * 32), power) for number, power in enumerate(powers)]


@given(powers=st.lists(st.integers(0, 10**12), max_size=12), size=st.integers(0, 8))
@settings(deadline=None)
def test_a_committee_has_different_members_with_power(powers: list[int], size: int) -> None:
    candidates = _candidates(powers)
    drawn = draw_committee(CLAIM, BEACON, candidates, size)
    assert len(drawn) == min(size, sum(power > 0 for power in powers))
    assert list(drawn) == sorted(set(drawn))
    assert all(dict(candidates)[account] > 0 for account in drawn)
    assert drawn == draw_committee(CLAIM, BEACON, candidates[::-1], size)


def test_a_committee_is_drawn_by_power() -> None:
    """Over 600 beacons an account with half of the power is drawn first about half the time."""
    candidates = _candidates([30, 20, 10])
    counts = Counter(draw_committee(CLAIM, Digest(n.to_bytes(32, "big")), candidates, 1)[0] for n in range(600))
    assert [260 < counts[candidates[0][0]] < 340, 160 < counts[candidates[1][0]] < 240] == [True, True]


def test_another_beacon_another_committee() -> None:
    candidates = _candidates([1] * 30)
    assert draw_committee(CLAIM, BEACON, candidates, 5) != draw_committee(CLAIM, Digest(bytes(32)), candidates, 5)


@given(count=st.integers(1, 60), wanted=st.integers(0, 70))
@settings(max_examples=12, deadline=None)
def test_a_sample_is_checked_by_everybody(count: int, wanted: int) -> None:
    proof, segments = draw_sample(KEY, CLAIM, BEACON, count, wanted)
    assert segments == verify_sample(KEY.account, CLAIM, BEACON, proof, count, wanted)
    assert len(segments) == min(count, wanted) and list(segments) == sorted(set(segments))
    assert all(0 <= segment < count for segment in segments)


def test_a_sample_is_its_verifiers_own() -> None:
    proof, segments = draw_sample(KEY, CLAIM, BEACON, 64, 8)
    other = SecretKey(b"\x04" * 32)
    assert draw_sample(other, CLAIM, BEACON, 64, 8)[1] != segments
    for account, claim, beacon in (
        (other.account, CLAIM, BEACON),
        (KEY.account, ClaimId(bytes(32)), BEACON),
        (KEY.account, CLAIM, Digest(bytes(32))),
    ):
        with pytest.raises(Rejected) as refused:
            verify_sample(account, claim, beacon, proof, 64, 8)
        assert refused.value.reason is Reason.BAD_PROOF
