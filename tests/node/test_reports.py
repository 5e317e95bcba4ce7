"""Reports of aggregations on disk."""

from __future__ import annotations

from pathlib import Path

from milon.base.hashing import digest
from milon.base.ids import AccountId, JobId
from milon.base.units import Round
from milon.node.reports import keep_report, read_report
from milon.pol.aggregation import Record, Report, Standing

JOB = JobId(digest("test-job"))


def make_record(pipeline: str) -> Record:
    standing = Standing(AccountId(bytes(32)), 4, 4, 1_000_000, 0, 0, "")
    return Record(Report(pipeline, 0, 4, (standing,)), (digest("final"),), digest("before"), digest("after"), "")


def test_a_report_is_kept_a_round_and_the_last_one_counts(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    assert read_report(folder, JOB, Round(0)) is None
    keep_report(folder, JOB, Round(0), make_record("median"))
    keep_report(folder, JOB, Round(1), make_record("krum"))
    keep_report(folder, JOB, Round(1), make_record("mean"))
    assert read_report(folder, JOB, Round(0)) == make_record("median")
    assert read_report(folder, JOB, Round(1)) == make_record("mean")
    assert read_report(folder, JobId(digest("other")), Round(0)) is None


def test_a_broken_file_is_no_report(tmp_path: Path) -> None:
    keep_report(tmp_path, JOB, Round(0), make_record("median"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert read_report(tmp_path, JOB, Round(0)) is None
