"""A segment is a function of its start state, the round's seed and its number, and of nothing else."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.gpu import train
from milon.gpu.checkpoint import from_bytes, state_digest, to_bytes
from milon.gpu.train import SegmentRun, compute_fingerprint, read_state, run_segment, train_segments
from milon.pol.claim import compute_trace
from tests.gpu.small_job import open_folder, open_small, prepare_small

REPOSITORY = Path(__file__).parents[2]
DIGESTS = """
import sys
from pathlib import Path
from tests.gpu.test_train import describe
print(describe(Path(sys.argv[1])))
"""


def describe(folder: Path) -> str:
    """The digests of two segments of the job in a folder, for comparison between processes."""
    work, start = open_folder(folder)
    runs = train_segments(work, start, 2, 2)
    return " ".join(f"{state_digest(run.state).hex()} {compute_trace(run.fingerprints).hex()}" for run in runs)


def _slow_fingerprint(loss: Tensor, gradients: dict[str, Tensor]) -> int:
    """By the definition, one element at a time."""
    elements = [float(loss)] + [float(x) for name in sorted(gradients) for x in gradients[name].reshape(-1)]
    bits = [int(torch.tensor(element).view(torch.int32)) for element in elements]
    total = sum(number * (2 * place + 1) for place, number in enumerate(bits)) % (1 << 64)
    return total - (1 << 64) if total >> 63 else total


def test_the_fingerprint_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(7, 5, generator=generator) * -1e3 for name in ("b", "a", "c")}
    loss = torch.tensor(2.5)
    expected = _slow_fingerprint(loss, gradients)
    assert compute_fingerprint(loss, gradients) == expected
    assert compute_fingerprint(loss, dict(reversed(gradients.items()))) == expected
    monkeypatch.setattr(train, "_CHUNK", 4)
    assert compute_fingerprint(loss, gradients) == expected


def test_the_fingerprint_sees_one_bit_and_a_swap() -> None:
    gradient = torch.arange(6, dtype=torch.float32)
    base = compute_fingerprint(torch.tensor(1.0), {"a": gradient})
    flipped = gradient.clone()
    flipped.view(torch.int32)[3] ^= 1
    assert compute_fingerprint(torch.tensor(1.0), {"a": flipped}) != base
    assert compute_fingerprint(torch.tensor(1.0), {"a": gradient.flip(0)}) != base
    assert compute_fingerprint(torch.tensor(-1.0), {"a": gradient}) != base


def test_every_nan_has_one_fingerprint() -> None:
    odd = torch.tensor([0x7FC00001, -1], dtype=torch.int32).view(torch.float32)
    plain = torch.full((2,), float("nan"))
    assert compute_fingerprint(odd[0], {"a": odd}) == compute_fingerprint(plain[0], {"a": plain})


def test_segments_chain_by_their_bytes() -> None:
    work, start = open_small()
    runs = list(train_segments(work, start, 0, 3))
    again = run_segment(work, runs[0].state, 1)
    assert again == runs[1] and len(runs) == 3
    assert len(runs[0].fingerprints) == work.steps_per_segment
    assert to_bytes(from_bytes(runs[2].state)) == runs[2].state
    assert int(from_bytes(runs[2].state)["model.1.num_batches_tracked"]) == 3 * work.steps_per_segment


@pytest.mark.parametrize("change", ["seed", "round", "segment", "start"])
def test_everything_prescribed_counts(change: str) -> None:
    work, start = open_small()
    base = run_segment(work, start, 1)
    segment = 1
    if change == "seed":
        work = dataclasses.replace(work, seed=Digest(b"\x08" * 32))
    elif change == "round":
        work = dataclasses.replace(work, round=1)
    elif change == "segment":
        segment = 2
    else:
        start = base.state
    other = run_segment(work, start, segment)
    assert state_digest(other.state) != state_digest(base.state)
    assert other.fingerprints != base.fingerprints


@pytest.mark.parametrize(("threads", "capability"), [(2, ""), (1, "default")])
def test_another_process_with_other_settings_gives_the_same_bits(threads: int, capability: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if capability:
        environment["ATEN_CPU_CAPABILITY"] = capability
    folder = prepare_small().blobs[0][1].parent
    command = [sys.executable, "-c", DIGESTS, str(folder)]
    found = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == describe(folder)


def test_the_number_of_threads_does_not_matter_here_either() -> None:
    work, start = open_small()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run_segment(work, start, 0)
        torch.set_num_threads(2)
        assert run_segment(work, start, 0) == one
    finally:
        torch.set_num_threads(before)


def _with_weight(raw: bytes, value: float) -> bytes:
    state = from_bytes(raw)
    state["model.5.weight"].view(-1)[0] = value
    return to_bytes(state)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw[:-1], Reason.MALFORMED),
        (lambda raw: b"", Reason.MALFORMED),
        (lambda raw: _with_weight(raw, float("nan")), Reason.NOT_FINITE),
        (lambda raw: _with_weight(raw, float("inf")), Reason.NOT_FINITE),
        (lambda raw: to_bytes({"model.5.weight": torch.zeros(3, 64)}), Reason.DOES_NOT_FIT),
        (lambda raw: to_bytes({**from_bytes(raw), "model.more": torch.zeros(1)}), Reason.DOES_NOT_FIT),
        (lambda raw: to_bytes({**from_bytes(raw), "model.5.bias": torch.zeros(4)}), Reason.DOES_NOT_FIT),
    ],
)
def test_a_start_state_that_is_none_is_refused(change, reason: Reason) -> None:  # type: ignore[no-untyped-def]
    work, start = open_small()
    with pytest.raises(Rejected) as refused:
        read_state(change(start), work.layout)
    assert refused.value.reason is reason


def _diverging(raw: bytes) -> bytes:
    """Finite weights whose first product is infinite."""
    state = from_bytes(raw)
    state["model.5.weight"].fill_(3e38)
    return to_bytes(state)


def test_a_run_that_diverges_ends_and_says_where() -> None:
    work, start = open_small()
    run = run_segment(work, _diverging(start), 0)
    assert (run.state, run.diverged_step) == (b"", 0) and len(run.fingerprints) == 1
    assert run == run_segment(work, _diverging(start), 0)
    with pytest.raises(Rejected, match="diverged in segment 4, step 0") as refused:
        next(train_segments(work, _diverging(start), 4, 2))
    assert refused.value.reason is Reason.NOT_FINITE


def test_what_was_trained_before_a_divergence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    work, start = open_small()
    real = run_segment

    def diverge_later(work: train.RoundWork, start: bytes, segment: int) -> SegmentRun:
        return real(work, start if segment < 2 else _diverging(start), segment)

    monkeypatch.setattr(train, "run_segment", diverge_later)
    assert len(list(train_segments(work, start, 0, 4))) == 2
