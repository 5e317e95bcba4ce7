"""Who checks a claim and which segments: drawn from the beacon and each verifier's own VRF, chosen by nobody."""

from __future__ import annotations

from collections.abc import Sequence

from milon.base import vrf
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, VrfProof
from milon.base.signing import SecretKey
from milon.pol.terms import PARTS_PER_MILLION


def draw_committee(
    claim: ClaimId, beacon: Digest, candidates: Sequence[tuple[AccountId, int]], size: int
) -> tuple[AccountId, ...]:
    """Up to `size` of the candidates (account, power), drawn by power without replacement, in account order."""
    remaining = sorted((account, power) for account, power in candidates if power > 0)
    drawn: list[AccountId] = []
    while remaining and len(drawn) < size:
        total = sum(power for _, power in remaining)
        block = digest("committee", claim, beacon, len(drawn).to_bytes(4, "big"))
        ticket = int.from_bytes(block, "big") % total
        for index, (account, power) in enumerate(remaining):
            ticket -= power
            if ticket < 0:
                drawn.append(account)
                del remaining[index]
                break
    return tuple(sorted(drawn))


def _alpha(claim: ClaimId, beacon: Digest) -> bytes:
    return digest("sample", claim, beacon)


def count_replays(beta: bytes, count: int, audit_ppm: int) -> int:
    """How many of `count` segments are replayed at this rate: its whole part, and one more as often as the rest says.

    The expectation is `count * audit_ppm / 10^6` to less than 2^-64; `beta` is a verifier's own VRF output.
    """
    whole, rest = divmod(count * audit_ppm, PARTS_PER_MILLION)
    ticket = int.from_bytes(digest("sample-rest", beta), "big")  # uniform below 2^256
    return whole + (ticket * PARTS_PER_MILLION < rest << 256)


def draw_places(beta: bytes, count: int, audit_ppm: int) -> tuple[int, ...]:
    """Different places of `count`, in order, maybe none: the first steps of a Fisher-Yates shuffle under `beta`."""
    places, wanted = list(range(count)), min(count, count_replays(beta, count, audit_ppm))
    for index in range(wanted):
        block = digest("sample-place", beta, index.to_bytes(4, "big"))
        other = index + int.from_bytes(block, "big") % (count - index)
        places[index], places[other] = places[other], places[index]
    return tuple(sorted(places[:wanted]))


def draw_sample(
    key: SecretKey, claim: ClaimId, beacon: Digest, count: int, audit_ppm: int
) -> tuple[VrfProof, tuple[int, ...]]:
    """A verifier's own draw: the proof, and which of the claim's `count` segments (0 is its first) it replays.

    Each segment is drawn with the chance `audit_ppm` says, whatever `count` is; few of them at a low rate: often none.
    """
    proof = vrf.prove(key, _alpha(claim, beacon))
    return proof, draw_places(vrf.verify(key.account, _alpha(claim, beacon), proof), count, audit_ppm)


def verify_sample(
    verifier: AccountId, claim: ClaimId, beacon: Digest, proof: VrfProof, count: int, audit_ppm: int
) -> tuple[int, ...]:
    """The segments `proof` obliges `verifier` to replay; `Rejected(BAD_PROOF)` if the proof is not its own."""
    return draw_places(vrf.verify(verifier, _alpha(claim, beacon), proof), count, audit_ppm)
