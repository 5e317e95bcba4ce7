"""The reports of this node's aggregations: one small file a round, for people; nothing on the chain depends on them."""

from __future__ import annotations

from pathlib import Path

from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import JobId
from milon.base.units import Round
from milon.node.folder import read_file, write_file
from milon.pol.aggregation import Record

REPORT_MAX_BYTES = 1 << 20  # 1,024 updates with a reason of some hundred characters each


def _path(folder: Path, job: JobId, round_number: Round) -> Path:
    return folder / f"{job.hex()}-{round_number}.cbor"


def keep_report(folder: Path, job: JobId, round_number: Round, record: Record) -> None:
    """Write the report of a round; the one that was there before is lost."""
    write_file(_path(folder, job, round_number), encode(record))


def read_report(folder: Path, job: JobId, round_number: Round) -> Record | None:
    """The report of a round, or None where this node has none that can be read."""
    path = _path(folder, job, round_number)
    if not path.is_file():
        return None
    try:
        return decode(Record, read_file(path, REPORT_MAX_BYTES))
    except Rejected:
        return None
