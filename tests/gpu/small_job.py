"""A tiny job, prepared once per test run: 2 steps a segment on 60 rows, a model with every kind of state."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import nn

from milon.base.codec import decode
from milon.base.ids import Digest
from milon.client.job import Job
from milon.client.prepare import SPEC_FILE, Prepared, prepare
from milon.gpu.train import RoundWork
from milon.gpu.work_library import Files, Library, layout_of
from milon.pol.program import ProgramKind
from milon.pol.terms import JobSpec
from milon.pol.work import BlobFile

SEED = Digest(b"\x07" * 32)


def make_rows(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one channel, 4 x 4, whose class is the brighter of three columns."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(rows, 1, 4, 4, generator=generator)
    return images, images[:, 0, :, :3].mean(dim=1).argmax(dim=1)


def make_model() -> nn.Module:
    """Convolution, batch normalisation with buffers, and dropout with draws."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64, 3),
    )


def make_job() -> Job:
    """The job; Adam, so that the state has slots."""
    return Job(
        name="small",
        model=make_model(),
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        train=make_rows(60, 1),
        evaluation=make_rows(23, 2),
        rounds=2,
        segments_per_round=6,
        steps_per_segment=2,
        batch_size=8,
    )


@cache
def prepare_small() -> Prepared:
    """The prepared job; its files stay for the test run and are not changed."""
    return prepare(make_job(), Path(mkdtemp(prefix="milon-small-job-")))


def list_files(prepared: Prepared) -> tuple[BlobFile, ...]:
    """The job's blobs as a request names them."""
    return tuple(BlobFile(blob, str(path)) for blob, path in prepared.blobs)


def open_work(spec: JobSpec, listed: tuple[BlobFile, ...]) -> tuple[RoundWork, bytes]:
    """What a round of a job shares, and the bytes of its first state."""
    files, library = Files(listed), Library()
    plan = library.open_program(files, spec.train, ProgramKind.TRAIN)
    data = library.open_dataset(files, spec.train_rows)
    layout = layout_of(plan.program)
    work = RoundWork(plan, layout, data, spec.terms.batch_size, spec.terms.steps_per_segment, SEED, 0)
    return work, files.read(spec.initial_state)


@cache
def open_small() -> tuple[RoundWork, bytes]:
    """The same for the small job."""
    prepared = prepare_small()
    return open_work(prepared.spec, list_files(prepared))


def open_folder(folder: Path) -> tuple[RoundWork, bytes]:
    """The same from a folder that `prepare` has filled, as another machine sees it."""
    spec = decode(JobSpec, (folder / SPEC_FILE).read_bytes())
    blobs = [path for path in folder.iterdir() if path.name != SPEC_FILE]
    return open_work(spec, tuple(BlobFile(Digest(bytes.fromhex(path.name)), str(path)) for path in blobs))
