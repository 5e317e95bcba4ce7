"""`make bench-proof`: what proof of learning costs, beside what it is worth.

Measured on the models of the golden vectors, in processor time of one thread: training a segment, replaying it, and of
training what the commitments take (a fingerprint each step, the state's digest each segment); the latter on models of
ordinary size too. Drawn, by members' own VRFs over so many beacons: what they replay, and how often a share of false
segments is met, beside the arithmetic that `milon job quote` uses. Counted: bytes that a claim puts on the chain, and
states that a trainer stores. Disputes: `bench.proof_dispute`.

A row's "theirs" is the goal where there is one, and what the arithmetic says for chances.

    python -m bench.proof                  all models; results go to bench/results/proof.json
    python -m bench.proof --steps 4 gpt    fewer
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from bench import digests
from bench.honest import open_model
from bench.step import TASKS
from milon.base.codec import encode
from milon.base.hashing import digest
from milon.base.ids import NO_DIGEST, AccountId, ClaimId, Digest, JobId, Signature, VrfProof
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Count, Nonce, Round
from milon.chain.transaction import (
    Action,
    Attest,
    Claim,
    CommitAttestation,
    OpenTraces,
    Transaction,
    TransactionBody,
)
from milon.client.terms import compute_terms
from milon.gpu.checkpoint import state_digest, to_bytes
from milon.gpu.replay import replay_segment
from milon.gpu.train import RoundWork, SegmentRun, fingerprint_of, read_state, run_segment
from milon.pol.batches import compute_batch
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.program import StepKey
from milon.pol.quote import SURE_PPM, compute_catch_chance, compute_quote, compute_rounds_until, find_least_audit
from milon.pol.sampling import draw_sample
from milon.pol.terms import PARTS_PER_MILLION
from milon.pol.work import ReplayItem

RESULT = Path(__file__).parent / "results" / "proof.json"
DISPUTE = RESULT.with_name("dispute.json")
MODELS = ("perceptron", "convolution-net", "gpt", "resnet18")
STEPS = 10  # of a segment, as jobs have by default
REPEATS = 3  # of which the least counts: everything else on the machine only adds
GOAL_VERIFY, GOAL_COMMIT = 0.05, 0.02
SLASH_PPM = 500_000
BEACONS = 1_000  # claims drawn for: chances come out within 0.03, a rate of one in 64 within a tenth of it
LARGE_TURNS = 5  # steps of each of the larger models
PERCENTS = (1, 10, 25, 50)  # false segments
# Terms whose audit is compared: those a job has by default, the same rate where one trainer has the whole round, and
# what strangers are advised to take.
TERMS: dict[str, dict[str, Any]] = {
    "default": {},
    "3 of 64": {
        "segments_per_round": 64, "audit_ppm": (15_625,), "trainers_min": 1, "trainers_target": 1,
        "aggregator": "mean", "faulty_count": 0,
    },
    "a quarter": {"audit": 0.25},
}  # fmt: skip
Json = dict[str, Any]


def time_least(function: Callable[[], object], repeats: int) -> float:
    """Processor seconds of the quickest of so many runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        function()
        best = min(best, time.process_time() - began)
    return best


def record_of(run: SegmentRun) -> SegmentRecord:
    """What a claim says of a run of segment 0."""
    trace = commit_trace(compute_trace(run.fingerprints))
    return SegmentRecord(Count(0), state_digest(run.state), trace, Count(run.loss_bits))


def _run_bare(work: RoundWork, start: bytes) -> list[Any]:
    """The same steps without any commitment; the results, so that commitments can be timed alone."""
    state = read_state(start, work.layout)
    results = []
    for step in range(work.steps_per_segment):
        batch = work.data.take(compute_batch(work.seed, step, work.batch_size, work.data.rows))
        results.append(work.plan.run(state, batch, StepKey(work.seed, work.round, 0, step)))
        state = dict(results[-1].new_state)
    return results


def measure_model(name: str, steps: int, repeats: int) -> Json:
    """Training, replay and commitments of one model, in processor seconds a segment."""
    opened, start = open_model(name)
    work = replace(opened, steps_per_segment=steps)
    run = run_segment(work, start, 0)
    item = ReplayItem(Count(0), NO_DIGEST, record_of(run))
    if not replay_segment(work, start, item).is_same:
        raise RuntimeError(f"{name}: an honest segment is refused")
    results = _run_bare(work, start)
    bare = time_least(lambda: _run_bare(work, start), repeats)
    prints = time_least(lambda: [fingerprint_of(result) for result in results], repeats)
    names = time_least(lambda: state_digest(to_bytes(results[-1].new_state)), repeats)
    train = time_least(lambda: run_segment(work, start, 0), repeats)
    replay = time_least(lambda: replay_segment(work, start, item), repeats)
    return {
        "model": name,
        "state_bytes": len(start),
        "step_s": bare / steps,
        "train_segment_s": train,
        "replay_segment_s": replay,
        "replay_over_training": replay / train,
        "commitments_over_step": (prints + names) / bare,
        "fingerprints_over_step": prints / bare,
        "digest_over_step": names / bare,
    }


def _size_of(action: Action) -> int:
    body = TransactionBody("chain-1", AccountId(bytes(32)), Nonce(1_000), Amount(1), action)
    return len(encode(Transaction(body, Signature(bytes(64)))))


def count_claim_bytes(segments: int, members: int) -> Json:
    """Bytes of the transactions behind one accepted claim of so many segments and so many verifiers."""
    some = Digest(digest("proof", b"some"))
    claim, proof = ClaimId(some), VrfProof(bytes(80))
    records = tuple(SegmentRecord(Count(1_000 + n), some, some, Count(1 << 30)) for n in range(segments))
    wide = Count(segments)
    sizes = {
        "claim": _size_of(Claim(JobId(some), Round(100), wide, wide, some, some, some, Count(100_000))),
        "commitments": members * _size_of(CommitAttestation(claim, some)),
        "attestations": members * _size_of(Attest(claim, proof, some, some)),
        "opening": _size_of(OpenTraces(claim, records, (some,) * segments)),
    }
    return {"segments": segments, "members": members, **sizes, "total": sum(sizes.values())}


def draw_claims(segments: int, ppm: int, members: int, beacons: int) -> list[list[tuple[int, ...]]]:
    """What each member draws of one claim after the other, by its own key."""
    keys = [secret_key_from(f"member {number}") for number in range(members)]
    found = []
    for number in range(beacons):
        claim, beacon = (Digest(digest(f"bench-{word}", number.to_bytes(8, "big"))) for word in ("claim", "beacon"))
        found.append([draw_sample(key, ClaimId(claim), beacon, segments, ppm)[1] for key in keys])
    return found


def count_caught(claims: list[list[tuple[int, ...]]], share: Fraction, segments: int) -> float:
    """The part of the claims whose draws meet a false segment; which are false changes from claim to claim."""
    chance, caught = random.Random(1), 0
    whole, rest = divmod(share * segments, 1)
    for draws in claims:
        false = set(chance.sample(range(segments), whole + (chance.random() < rest)))
        caught += any(false & set(draw) for draw in draws)
    return caught / len(claims)


def weigh(name: str, replay_over_training: float, beacons: int = BEACONS) -> Json:
    """What an audit costs over training, and the chance per round that it catches a share of false segments."""
    terms, _ = compute_terms(TERMS[name])
    found = compute_quote(terms, SLASH_PPM)
    segments, members, ppm = int(found.segments), int(terms.committee_size), find_least_audit(terms)
    claims = draw_claims(segments, ppm, members, beacons)
    sure = Fraction(SURE_PPM, PARTS_PER_MILLION)
    rows = []
    for percent in PERCENTS:
        share = Fraction(percent, 100)
        chance = compute_catch_chance(share, segments, ppm, members)
        rows.append(
            {
                "false_percent": percent,
                "caught_a_round": float(chance),
                "measured_a_round": count_caught(claims, share, segments),
                "rounds_until_99_percent": compute_rounds_until(chance, sure),
            }
        )
    replays = int(found.replays_ppm) / PARTS_PER_MILLION
    share_of_training = replays / segments * replay_over_training
    return {
        "terms": name,
        "segments_of_a_claim": segments,
        "replays_of_a_claim": replays,
        "measured_replays_of_a_claim": sum(len(draw) for draws in claims for draw in draws) / len(claims),
        "claims_drawn": beacons,
        "verification_over_training": share_of_training,
        "is_within_goal": share_of_training <= GOAL_VERIFY,
        "bond_over_segment_price": int(found.bond) / int(terms.segment_price),
        "detection": rows,
        "claim_bytes": count_claim_bytes(segments, members),
        "stored_states_of_a_claim": segments,
    }


def measure_large(name: str, steps: int, turns: int) -> Json:
    """Commitments of a model of ordinary size, whose state and gradients are large: shares of its own step."""
    found = digests.measure(name, turns)
    segment = (found["digest_ms"] + found["bytes_ms"]) / (steps * found["step_ms"])
    prints = found["fingerprint_ms"] / found["step_ms"]
    return {
        "model": name,
        "step_s": found["step_ms"] / 1e3,
        "commitments_over_step": prints + segment,
        "fingerprints_over_step": prints,
        "digest_over_step": segment,
    }


def _row(name: str, ours: float, theirs: float, unit: str) -> Json:
    ratio = round(ours / theirs, 3) if theirs else None
    return {"name": name, "ours": round(ours, 4), "theirs": round(theirs, 4), "ratio": ratio, "unit": unit}


def make_rows(found: Json) -> list[Json]:
    """The figures in the shape that all benches share."""
    rows = []
    for audit in found["audits"]:
        name = f"audit {audit['terms']}"
        cost = 100 * audit["verification_over_training"]
        rows.append(_row(f"{name}: verification", cost, 100 * GOAL_VERIFY, "% of training"))
        expected, drawn = audit["replays_of_a_claim"], audit["measured_replays_of_a_claim"]
        rows.append(_row(f"{name}: replays drawn", drawn, expected, "a claim"))
        for entry in audit["detection"]:
            caught = 100 * entry["measured_a_round"], 100 * entry["caught_a_round"]
            rows.append(_row(f"{name}: f = {entry['false_percent']} % caught", *caught, "% of rounds"))
    for model in found["models"] + found["large_models"]:
        share = 100 * model["commitments_over_step"]
        rows.append(_row(f"commitments, {model['model']}", share, 100 * GOAL_COMMIT, "% of a step"))
    return rows


def describe(found: Json) -> list[str]:
    """Lines for a person."""
    lines = [
        f"{row['model']:16} step {1000 * row['step_s']:8.2f} ms  replay/training {row['replay_over_training']:.3f}  "
        f"commitments {100 * row['commitments_over_step']:.2f} % of a step (goal {100 * GOAL_COMMIT:.0f} %)"
        for row in found["models"]
    ]
    lines += [
        f"{row['model']}: step {1000 * row['step_s']:.1f} ms, commitments "
        f"{100 * row['commitments_over_step']:.2f} % of it"
        for row in found["large_models"]
    ]
    for row in found["audits"]:
        verdict = "" if row["is_within_goal"] else f", goal {100 * GOAL_VERIFY:.0f} % NOT MET"
        chances = ", ".join(
            f"f={entry['false_percent']} %: {100 * entry['caught_a_round']:.1f} % a round "
            f"({100 * entry['measured_a_round']:.1f} % of {row['claims_drawn']} claims), "
            f"99 % after {entry['rounds_until_99_percent']}"
            for entry in row["detection"]
        )
        lines += [
            f"audit {row['terms']}: {row['replays_of_a_claim']:g} replays of {row['segments_of_a_claim']} segments "
            f"({row['measured_replays_of_a_claim']:g} drawn), {100 * row['verification_over_training']:.2f} % of "
            f"training{verdict}; bond {row['bond_over_segment_price']:.1f} prices; {chances}",
            f"  a claim: {row['claim_bytes']['total']} bytes on the chain; its trainer stores "
            f"{row['stored_states_of_a_claim']} states",
        ]
    return lines


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models of the golden vectors")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--beacons", type=int, default=BEACONS, help="claims to draw for")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = []
    for name in options.names or MODELS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        models.append(measure_model(name, options.steps, options.repeats))
    large = [] if options.names else [measure_large(name, options.steps, LARGE_TURNS) for name in TASKS]
    replayed, trained = (sum(row[key] for row in models) for key in ("replay_segment_s", "train_segment_s"))
    found: Json = {
        "machine": {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__},
        "steps_per_segment": options.steps,
        "models": models,
        "large_models": large,
        "replay_over_training": replayed / trained,
        "audits": [weigh(name, replayed / trained, options.beacons) for name in TERMS],
        "dispute": json.loads(DISPUTE.read_text()) if DISPUTE.exists() else None,
    }
    found["rows"] = make_rows(found)
    for line in describe(found):
        print(line)
    if not options.names:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
