"""From a user's job to what the network takes: programs, first state and data as blobs, and the spec that names them.

`python -m milon.client.prepare FILE.py --out DIR` runs the user's file and captures the model, so it is a process of
its own: the command line stays light, and a file that fails takes nothing along. Progress goes to standard error; the
last line on standard output is JSON: {"spec", "reward", "name", "blobs", "bytes"}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.client.job import Job, load_job_file
from milon.client.terms import JobError, compute_evaluation_batches, compute_terms
from milon.pol.terms import EvaluationProgram, JobSpec, verify_spec
from milon.pol.work import BlobFile

SPEC_FILE = "spec.cbor"
EXIT_JOB_WRONG = 2  # what the user must change stands on standard error

_WHOLE_NUMBERS = (
    "rounds", "segments_per_round", "steps_per_segment", "batch_size", "faulty_count", "committee_size", "trainers_min",
    "trainers_target", "enrol_blocks", "claim_blocks", "attest_blocks", "judge_blocks", "aggregate_blocks", "reward",
    "segment_price", "replay_price", "bond_min", "dispute_blocks", "challenge_blocks",
    "reassign_blocks",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job ready to be submitted."""

    spec: JobSpec  # what the transaction carries
    reward: int  # what it should lock: at least the most the job can cost
    blobs: tuple[tuple[Digest, Path], ...]  # what the submitter must serve until validators hold it


def _describe_rows(what: str, count: int, files: Sequence[BlobFile]) -> str:
    return f"{what}: {count} rows in {len(files) - 1} shard{'s' if len(files) > 2 else ''}"


def prepare(
    job: Job,
    folder: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    train: Any = None,
    evaluation: Any = None,
    report: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Capture the job and write its blobs into `folder`, each under its id in hexadecimal, and the spec.

    `overrides` are terms that go before the job's own; `train` and `evaluation`, where given, replace its data. Raises
    `JobError` or `Rejected` with what is wrong: the terms, the data, or a model that cannot be captured.
    """
    from milon.gpu import work_data  # torch is loaded where it is needed, so that `milon.Job` itself stays light
    from milon.gpu.recipe import Recipe
    from milon.gpu.work_capture import capture_job
    from milon.gpu.work_rehearsal import rehearse

    terms, reward = compute_terms({**job.choices, **(overrides or {})})
    folder.mkdir(parents=True, exist_ok=True)
    train_names, train_columns = work_data.collect_columns(job.train if train is None else train, "training data")
    names, columns = work_data.collect_columns(job.evaluation if evaluation is None else evaluation, "evaluation data")
    rows = len(columns[0])
    rehearse(job.model, job.loss, job.optimizer, train_names, train_columns, columns, terms.batch_size)
    train_files = work_data.write_dataset(train_names, train_columns, folder)
    report(_describe_rows("training data", len(train_columns[0]), train_files))
    evaluation_files = work_data.write_dataset(names, columns, folder)
    report(_describe_rows("evaluation data", rows, evaluation_files))
    sizes = compute_evaluation_batches(rows, terms.batch_size)
    report("capturing the model, its loss and its optimizer")
    recipe = Recipe(job.schedule, job.clip_norm, job.clip_value, job.accumulate)
    captured = capture_job(job.model, job.loss, job.optimizer, train_columns, terms.batch_size, sizes, folder, recipe)
    report(captured.description)
    spec = JobSpec(
        name=job.name,
        train=captured.train.blob,
        evaluate=tuple(
            EvaluationProgram(Count(size), file.blob) for size, file in zip(sizes, captured.evaluate, strict=True)
        ),
        predict=captured.predict.blob,
        initial_state=captured.state.blob,
        train_rows=train_files[-1].blob,
        evaluation_rows=evaluation_files[-1].blob,
        terms=terms,
    )
    verify_spec(spec)
    (folder / SPEC_FILE).write_bytes(encode(spec))
    files = [captured.train, *captured.evaluate, captured.predict, captured.state, *train_files, *evaluation_files]
    found = {file.blob: Path(file.path) for file in files}
    return Prepared(spec, reward, tuple(found.items()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m milon.client.prepare", description="Prepare a job's blobs.")
    parser.add_argument("file", type=Path, help="the Python file that makes the milon.Job")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the spec and the blobs")
    parser.add_argument("--train-data", type=Path, help="an .npz file instead of the job's training data")
    parser.add_argument("--evaluation-data", type=Path, help="an .npz file instead of the job's evaluation data")
    parser.add_argument("--aggregator", help="a pipeline, such as trimmed-mean or arc,nnm,median")
    parser.add_argument("--settlement", help="replay or bisection: how a challenged segment is decided")
    parser.add_argument("--audit", help="share of segments that each verifier replays: 0.25, or one per round: 0,0,1")
    parser.add_argument("--audit-ppm", help="the same in parts per million: 250000, or 0,0,1000000")
    parser.add_argument("--trainers", help="account ids of who may take part, with commas between")
    for name in _WHOLE_NUMBERS:
        parser.add_argument("--" + name.replace("_", "-"), type=int, help="see milon.client.terms")
    return parser.parse_args(arguments)


def _read_overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    overrides: dict[str, Any] = {
        name: getattr(parsed, name)
        for name in (*_WHOLE_NUMBERS, "aggregator", "settlement")
        if getattr(parsed, name) is not None
    }
    try:
        if parsed.audit is not None:
            overrides["audit"] = [float(share) for share in parsed.audit.split(",")]
        if parsed.audit_ppm is not None:
            overrides["audit_ppm"] = [int(ppm) for ppm in parsed.audit_ppm.split(",")]
    except ValueError as error:
        raise JobError(f"the audit rates: {error}; write numbers with commas between.") from None
    if parsed.trainers is not None:
        overrides["trainers"] = parsed.trainers.split(",")
    return overrides


def _drop_replaced(job: Job, overrides: Mapping[str, Any]) -> None:
    """An audit or a price from the command line replaces the job's own, however either of them is spelt."""
    for one, others in (
        ("audit", ("audit_ppm",)),
        ("audit_ppm", ("audit",)),
        ("reward", ("segment_price", "replay_price")),
    ):
        if one in overrides:
            job.choices = {name: value for name, value in job.choices.items() if name not in others}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the job of the command line; 0, or `EXIT_JOB_WRONG` with the reason on standard error."""
    parsed = _parse(arguments)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        overrides = _read_overrides(parsed)
        job = load_job_file(parsed.file)
        _drop_replaced(job, overrides)
        prepared = prepare(
            job,
            parsed.out,
            overrides=overrides,
            train=parsed.train_data,
            evaluation=parsed.evaluation_data,
            report=report,
        )
    except (JobError, Rejected) as error:
        report(f"error: {error}")
        return EXIT_JOB_WRONG
    summary = {
        "spec": str(parsed.out / SPEC_FILE),
        "reward": prepared.reward,
        "name": prepared.spec.name,
        "blobs": len(prepared.blobs),
        "bytes": sum(path.stat().st_size for _, path in prepared.blobs),
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
