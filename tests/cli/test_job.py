"""`milon submit-job`, `milon job` and `milon model pull`, up to the node's answer."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from milon.base.blob import compute_blob_id, compute_manifest
from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import JobId
from milon.base.signing import secret_key_from
from milon.chain.transaction import SubmitJob
from milon.client import submission
from milon.pol.terms import JobSpec
from milon_cli.watch import describe_taken_over
from tests.api.fake_node import JOB, TERMS, digest_of, make_job
from tests.api.serving import Served
from tests.cli.conftest import Milon

CONTENT = b"a program"
BLOB = compute_blob_id(compute_manifest(CONTENT))
SPEC = JobSpec("digits", BLOB, (), digest_of(2), digest_of(3), digest_of(4), digest_of(5), TERMS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Stands for the processes that load torch: they leave the files a capture leaves."""
    found: list[tuple[str, list[str]]] = []

    def run(module: str, arguments: list[str]) -> dict[str, Any]:
        found.append((module, arguments))
        if module == submission.MODEL:
            Path(arguments[3]).write_bytes(b" ".join((b"exported", *(Path(a).read_bytes() for a in arguments[1:3]))))
            return {"tensors": 1}
        if "--rounds=0" in arguments:
            raise Rejected(Reason.DOES_NOT_FIT, "rounds is 0")
        folder = Path(arguments[arguments.index("--out") + 1])
        (folder / BLOB.hex()).write_bytes(CONTENT)
        (folder / "spec.cbor").write_bytes(encode(SPEC))
        return {"reward": 700}

    monkeypatch.setattr(submission, "run_module", run)
    return found


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text("")
    return path


def test_a_job_is_captured_uploaded_and_submitted(
    milon: Milon, node: Path, served: Served, asked: list[tuple[str, list[str]]], job_file: Path
) -> None:
    words = ("--rounds", 3, "--aggregator", "median", "--audit", "0,0,1", "--term", "batch_size=64")
    told = milon("submit-job", job_file, *words, "--node", node, "--json")
    assert told.code == 0
    ((module, arguments),) = asked
    assert (module, arguments[0]) == (submission.PREPARE, str(job_file))
    assert arguments[3:] == ["--batch-size=64", "--rounds=3", "--aggregator=median", "--audit=0,0,1"]
    (sent,) = served.node.sent
    assert sent.body.action == SubmitJob(SPEC, 700)  # type: ignore[arg-type]  # a plain 700 will do
    assert sent.body.sender == secret_key_from("node 0").account
    assert (served.node.folder / BLOB.hex()).read_bytes() == CONTENT
    assert told.json == {"job": told.json["job"], "height": 12, "reward": 700}
    assert not Path(arguments[2]).exists()


def test_watching_ends_with_the_job(
    milon: Milon, node: Path, asked: list[tuple[str, list[str]]], job_file: Path
) -> None:
    told = milon("submit-job", job_file, "--node", node, "--watch")
    assert told.code == 0
    assert "accuracy 90.00 %" in told.out
    assert "finished" in told.out.splitlines()[-1]


def test_what_was_taken_over_is_told_in_words() -> None:
    own = {"trainer": "ab" * 32, "first": 0, "count": 2, "continues": None, "status": "accepted"}
    one = {**own, "first": 6, "count": 1, "continues": "cd" * 32}
    more = {**own, "first": 2, "count": 3, "continues": "cd" * 32, "status": "void: late"}
    assert list(describe_taken_over({"claims": [own, one, more]})) == [
        "  abababab took over segment 6, going on from its own work: accepted",
        "  abababab took over segments 2 to 4, going on from its own work: void: late",
    ]


def test_a_job_that_does_not_fit_sends_nothing(
    milon: Milon, node: Path, served: Served, asked: list[tuple[str, list[str]]], job_file: Path
) -> None:
    told = milon("submit-job", job_file, "--rounds", 0, "--node", node, "--json")
    assert (told.code, told.json["error"]["detail"]) == (2, "rounds is 0")
    assert not served.node.sent
    assert not list(served.node.folder.iterdir())


def test_the_chains_refusal_is_told(
    milon: Milon, node: Path, served: Served, asked: list[tuple[str, list[str]]], job_file: Path
) -> None:
    served.node.problem = "insufficient-funds: 500 where 701 are needed"
    assert milon("submit-job", job_file, "--node", node).code == 3


def test_wrong_words_capture_nothing(
    milon: Milon, node: Path, tmp_path: Path, asked: list[tuple[str, list[str]]], job_file: Path
) -> None:
    assert milon("submit-job", tmp_path / "none.py", "--node", node).code == 2
    assert milon("submit-job", job_file, "--term", "x", "--node", node).code == 2
    assert milon("submit-job", job_file, "--term", "--out=5", "--node", node).code == 2
    assert milon("submit-job", job_file, "--node", tmp_path).code == 2
    assert asked == []


def test_a_process_that_gives_up_is_a_refusal(job_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job_file.write_text("x = 1\n")
    with pytest.raises(Rejected) as refusal, submission.capture(job_file, {}):
        pass
    assert refusal.value.reason is Reason.DOES_NOT_FIT
    assert "error" in capfd.readouterr().err


def test_jobs_are_listed_and_shown(milon: Milon, node: Path) -> None:
    assert milon("job", "list", "--node", node, "--json").json["jobs"][0]["accuracy"] == 0.9
    assert "digits" in milon("job", "list", "--node", node).out
    shown = milon("job", "show", "07", "--node", node).out
    assert JOB.hex() in shown
    assert "screened: 450 % of the median distance" in shown
    assert milon("job", "show", "latest", "--node", node, "--json").json["round"] == 2
    assert milon("job", "show", "99", "--node", node).code == 2


def test_a_rejected_job_is_a_no(milon: Milon, node: Path, served: Served) -> None:
    served.node.jobs_by_id[JOB] = dataclasses.replace(make_job("rejected", 0), reason="the data does not fit")
    told = milon("job", "watch", "latest", "--node", node)
    assert told.code == 1
    assert "the data does not fit" in told.out


def test_a_model_is_pulled_whole(
    milon: Milon, node: Path, served: Served, asked: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    state = b"a state"
    blob = compute_blob_id(compute_manifest(state))
    (served.node.folder / blob.hex()).write_bytes(state)
    (served.node.folder / BLOB.hex()).write_bytes(CONTENT)
    served.node.jobs_by_id[JobId(JOB)] = dataclasses.replace(make_job("finished", 3), state=blob, predict=BLOB)
    out = tmp_path / "models" / "m.safetensors"
    told = milon("model", "pull", "latest", "-o", out, "--node", node, "--json")
    assert told.code == 0
    assert (told.json["state"], told.json["round"]) == (blob.hex(), 3)
    assert out.read_bytes() == b"exported a state a program"
    assert os.listdir(out.parent) == ["m.safetensors"]


def test_a_model_that_nobody_has_leaves_nothing(milon: Milon, node: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    told = milon("model", "pull", "latest", "-o", tmp_path / "models" / "m", "--node", node, "--json")
    assert (told.code, told.json["error"]["reason"]) == (3, "unavailable")
    assert os.listdir(tmp_path / "models") == []
    assert json.loads(told.out)
