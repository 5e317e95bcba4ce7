"""Who checks a claim and which segments: drawn from the beacon and each verifier's own VRF, chosen by nobody."""

from __future__ import annotations

from collections.abc import Sequence

from milon.base import vrf
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, VrfProof
from milon.base.signing import SecretKey


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


def _segments(beta: bytes, count: int, wanted: int) -> tuple[int, ...]:
    """`wanted` different places of `count`, in order: the first steps of a Fisher-Yates shuffle under `beta`."""
    places = list(range(count))
    for index in range(min(wanted, count)):
        block = digest("sample-place", beta, index.to_bytes(4, "big"))
        other = index + int.from_bytes(block, "big") % (count - index)
        places[index], places[other] = places[other], places[index]
    return tuple(sorted(places[: min(wanted, count)]))


def draw_sample(
    key: SecretKey, claim: ClaimId, beacon: Digest, count: int, wanted: int
) -> tuple[VrfProof, tuple[int, ...]]:
    """A verifier's own draw: the proof, and which of the claim's `count` segments (0 is its first) it replays."""
    proof = vrf.prove(key, _alpha(claim, beacon))
    return proof, _segments(vrf.verify(key.account, _alpha(claim, beacon), proof), count, wanted)


def verify_sample(
    verifier: AccountId, claim: ClaimId, beacon: Digest, proof: VrfProof, count: int, wanted: int
) -> tuple[int, ...]:
    """The segments `proof` obliges `verifier` to replay; `Rejected(BAD_PROOF)` if the proof is not its own."""
    return _segments(vrf.verify(verifier, _alpha(claim, beacon), proof), count, wanted)
