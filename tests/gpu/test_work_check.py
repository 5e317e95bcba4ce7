"""The check of a job: what this machine would be busy with for too long is refused."""

import pytest
import torch

from milon.base.errors import Reason, Rejected
from milon.base.units import Count
from milon.gpu import work_check
from milon.gpu.work_library import Library
from milon.pol.work import CheckJob
from tests.gpu.small_job import list_files, prepare_small


def test_a_job_whose_pieces_take_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_small()
    request = CheckJob(prepared.spec, list_files(prepared), Count(1 << 30), Count(1 << 40))
    with torch.no_grad():
        assert work_check.check_job(request, Library()).segments_per_hour > 6
        monkeypatch.setattr(work_check, "WORK_SECONDS_MAX", 1e-9)
        with pytest.raises(Rejected) as refused:
            work_check.check_job(request, Library())
    assert refused.value.reason is Reason.OVER_BUDGET
    assert "takes" in refused.value.detail
