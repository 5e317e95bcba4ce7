"""The blobs a request names, as programs, states and datasets; decoded once and kept for the requests that follow."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from milon.base.codec import SIZE_MAX_BYTES, decode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.gpu.checkpoint import MODEL_PREFIX, STATE_MAX_BYTES, state_digest
from milon.gpu.devices import ON_CPU, Choice
from milon.gpu.interpreter import Plan, load
from milon.gpu.operations import TORCH_DTYPES
from milon.gpu.rows import DATASET_BYTES_MAX, Dataset, parse_manifest, read_dataset
from milon.gpu.sharding import load_sharded
from milon.gpu.train import RoundWork
from milon.pol.program import (
    PROGRAM_BYTES_MAX,
    Budget,
    InputRole,
    OutputRole,
    Program,
    ProgramKind,
    verify_program,
)
from milon.pol.shapes import DType
from milon.pol.terms import JobSpec
from milon.pol.work import BlobFile

PROGRAMS_KEPT = 16  # the programs of four jobs
DATASETS_KEPT = 8  # training and evaluation rows of four jobs

Kept = TypeVar("Kept")


class Files:
    """Where the blobs of one request lie."""

    def __init__(self, files: Iterable[BlobFile]) -> None:
        self._paths = {file.blob: Path(file.path) for file in files}

    def find(self, blob: Digest) -> Path:
        """The blob's path; `Rejected(UNAVAILABLE)` where the request does not name it or no file is there."""
        path = self._paths.get(blob)
        if path is None or not path.is_file():
            raise Rejected(Reason.UNAVAILABLE, f"blob {blob.hex()[:8]} is not on this machine")
        return path

    def read(self, blob: Digest, size_max_bytes: int = STATE_MAX_BYTES) -> bytes:
        """The blob's content."""
        path = self.find(blob)
        size = path.stat().st_size
        require(size <= size_max_bytes, Reason.TOO_LARGE, f"blob {blob.hex()[:8]} has {size} bytes")
        return path.read_bytes()


def write_blob(folder: Path, raw: bytes, known: Digest | None = None) -> BlobFile:
    """Write `raw` under its blob id in hexadecimal into `folder`; the name appears when the content is whole.

    `known`: the id, where it was computed before.
    """
    blob = known or state_digest(raw)
    path = folder / blob.hex()
    part = folder / f".{blob.hex()}.{os.getpid()}.part"
    part.write_bytes(raw)
    part.replace(path)
    return BlobFile(blob, str(path))


def read_program(files: Files, blob: Digest, kind: ProgramKind) -> Program:
    """The program in a blob; `Rejected(WRONG_TYPE)` unless it is of `kind`."""
    program = decode(Program, files.read(blob, PROGRAM_BYTES_MAX), PROGRAM_BYTES_MAX)
    require(program.kind is kind, Reason.WRONG_TYPE, f"a {program.kind.value} program where {kind.value} is needed")
    return program


def layout_of(program: Program) -> dict[str, Tensor]:
    """Name, shape and dtype of every state tensor the program reads, as tensors without storage."""
    return {
        entry.name: torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype], device="meta")
        for entry in program.inputs
        if entry.role is InputRole.STATE
    }


def statistics_of(program: Program) -> frozenset[str]:
    """The state tensors of the model that no gradient moves: buffers such as BatchNorm's running statistics."""
    trained = {output.name for output in program.outputs if output.role is OutputRole.GRADIENT}
    state = {entry.name for entry in program.inputs if entry.role is InputRole.STATE}
    return frozenset(name for name in state - trained if name.startswith(MODEL_PREFIX))


def batch_types(program: Program) -> tuple[tuple[DType, tuple[int, ...]], ...]:
    """Element type and shape of every batch tensor the program reads, in order."""
    return tuple((entry.dtype, entry.shape) for entry in program.inputs if entry.role is InputRole.BATCH)


def _keep(kept: OrderedDict[Digest, Kept], blob: Digest, make: Callable[[], Kept], count_max: int) -> Kept:
    if blob in kept:
        kept.move_to_end(blob)
        return kept[blob]
    value = make()
    kept[blob] = value
    while len(kept) > count_max:
        kept.popitem(last=False)
    return value


class Library:
    """Loaded programs and datasets by blob id, the least recently used given up first."""

    def __init__(self, choice: Choice = ON_CPU) -> None:
        """`choice`: what programs run on."""
        self._choice = choice
        self._plans: OrderedDict[Digest, Plan] = OrderedDict()
        self._datasets: OrderedDict[Digest, Dataset] = OrderedDict()

    def open_program(self, files: Files, blob: Digest, kind: ProgramKind) -> Plan:
        """The program in a blob, checked and ready to run."""
        plan = _keep(self._plans, blob, lambda: self._load(read_program(files, blob, kind)), PROGRAMS_KEPT)
        if plan.program.kind is not kind:
            found = plan.program.kind.value
            raise Rejected(Reason.WRONG_TYPE, f"a {found} program where {kind.value} is needed")
        return plan

    def _load(self, program: Program) -> Plan:
        devices = self._choice.spread(verify_program(program, Budget()).operations)
        return load(program, devices[0]) if len(devices) == 1 else load_sharded(program, devices)

    def open_dataset(self, files: Files, blob: Digest) -> Dataset:
        """The dataset whose manifest is `blob`."""

        def make() -> Dataset:
            return read_dataset(parse_manifest(files.read(blob, SIZE_MAX_BYTES)), files.find)

        dataset = _keep(self._datasets, blob, make, DATASETS_KEPT)
        while len(self._datasets) > 1 and self._count_bytes() > DATASET_BYTES_MAX:
            self._datasets.popitem(last=False)
        return dataset

    def open_work(self, files: Files, spec: JobSpec, seed: Digest, round_number: int) -> RoundWork:
        """What the segments of a round share."""
        plan = self.open_program(files, spec.train, ProgramKind.TRAIN)
        data = self.open_dataset(files, spec.train_rows)
        batch_size, steps = int(spec.terms.batch_size), int(spec.terms.steps_per_segment)
        return RoundWork(plan, layout_of(plan.program), data, batch_size, steps, seed, round_number)

    def _count_bytes(self) -> int:
        return sum(dataset.size_bytes for dataset in self._datasets.values())
