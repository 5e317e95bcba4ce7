"""Committees and samples are drawn by chance that nobody chooses and everybody can check."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest
from milon.base.signing import SecretKey
from milon.pol.sampling import count_replays, draw_committee, draw_sample, verify_sample
from milon.pol.terms import replays_max_per_member

CLAIM = ClaimId(b"\x01" * 32)
BEACON = Digest(b"\x02" * 32)
KEY = SecretKey(b"\x03" * 32)
FROZEN = [(4,), (7, 8), (2, 5), (6,), (8,), (1,)]


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


@given(count=st.integers(1, 60), ppm=st.integers(0, 1_000_000))
@settings(max_examples=12, deadline=None)
def test_a_sample_is_checked_by_everybody(count: int, ppm: int) -> None:
    proof, segments = draw_sample(KEY, CLAIM, BEACON, count, ppm)
    assert segments == verify_sample(KEY.account, CLAIM, BEACON, proof, count, ppm)
    assert count * ppm // 1_000_000 <= len(segments) <= replays_max_per_member(count, ppm)
    assert list(segments) == sorted(set(segments))
    assert all(0 <= segment < count for segment in segments)


@pytest.mark.parametrize(("count", "ppm", "least", "most"), [(4, 0, 0, 0), (4, 1_000_000, 4, 4), (64, 15_625, 1, 1)])
def test_a_rate_that_makes_whole_segments_leaves_nothing_to_chance(count: int, ppm: int, least: int, most: int) -> None:
    for number in range(50):
        assert least <= count_replays(number.to_bytes(64, "big"), count, ppm) <= most


@given(rest=st.integers(1, 999_999), beta=st.binary(min_size=64, max_size=64))
def test_one_more_is_replayed_exactly_where_the_ticket_is_below_the_rest(rest: int, beta: bytes) -> None:
    ticket = int.from_bytes(digest("sample-rest", beta), "big")
    assert count_replays(beta, 1, rest) == (Fraction(ticket, 1 << 256) < Fraction(rest, 1_000_000))


def test_a_fraction_of_a_segment_is_replayed_as_often_as_it_says() -> None:
    """Four segments at one in 64: one replay in 16 draws, where rounding up would make it four times the rate."""
    drawn = [count_replays(number.to_bytes(64, "big"), 4, 15_625) for number in range(4_000)]
    assert 190 < sum(drawn) < 310 and max(drawn) == 1, "250 expected; four standard deviations are 61"


def test_what_a_seed_draws_never_changes() -> None:
    """Every node must find the same; a change here is another chain."""
    drawn = [draw_sample(KEY, CLAIM, Digest(bytes([number]) * 32), 10, 150_000)[1] for number in range(6)]
    assert drawn == FROZEN


def test_a_sample_is_its_verifiers_own() -> None:
    proof, segments = draw_sample(KEY, CLAIM, BEACON, 64, 125_000)
    other = SecretKey(b"\x04" * 32)
    assert draw_sample(other, CLAIM, BEACON, 64, 125_000)[1] != segments
    for account, claim, beacon in (
        (other.account, CLAIM, BEACON),
        (KEY.account, ClaimId(bytes(32)), BEACON),
        (KEY.account, CLAIM, Digest(bytes(32))),
    ):
        with pytest.raises(Rejected) as refused:
            verify_sample(account, claim, beacon, proof, 64, 125_000)
        assert refused.value.reason is Reason.BAD_PROOF
