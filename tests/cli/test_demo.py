"""The demonstration's figures, its verdict on itself, its screens and its folder; the run itself is a system test."""

import dataclasses
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from milon.api.shapes import shape_job, shape_status
from milon.base.ids import AccountId
from milon.base.units import Amount
from milon.chain.learning import Payment
from milon.node.view import RoundView
from milon_cli.demo import working_folder
from milon_cli.demo_report import Outcome, build_report, final_accuracy, list_failures, summarize
from milon_cli.demo_screen import LiveScreen, PlainScreen, Snapshot
from tests.api.fake_node import ACCOUNTS, make_job, make_round, make_status

HONEST = tuple(account.hex() for account in ACCOUNTS[:4])
POISONER = ACCOUNTS[4].hex()


def _caught(closed: RoundView, account: AccountId = ACCOUNTS[4]) -> RoundView:
    claims = tuple(
        dataclasses.replace(claim, status="refuted: segment 8 replays to other bits")
        if claim.trainer == account
        else claim
        for claim in closed.claims
    )
    payments = (Payment(ACCOUNTS[0], Amount(10), "segments"), Payment(account, Amount(7), "slash"))
    return dataclasses.replace(closed, claims=claims, payments=payments)


def _outcome(**changes: Any) -> Outcome:
    """A good run: one unaudited round in which the rule refused, one audited in which the replay did."""
    rounds = (dataclasses.replace(make_round(0), payments=(Payment(ACCOUNTS[1], Amount(4), "replays"),)),)
    rounds += (_caught(make_round(1)),)
    view = dataclasses.replace(make_job("finished", 2), rounds=changes.pop("rounds", rounds))
    job = json.loads(json.dumps(shape_job(view)))
    digests = dict.fromkeys((*HONEST, POISONER), job["state"])
    verify = {"height": 21, "verdict": "valid", "segments_replayed": 4}
    found = Outcome(job, digests, verify, 0.9, 12.34, (POISONER,))
    return dataclasses.replace(found, **changes)


def _failures(outcome: Outcome, expectation: str = "good", accuracy_min: float = 0.9) -> list[str]:
    return list_failures(outcome, expectation, accuracy_min)


def test_the_report_has_the_shape_that_was_promised() -> None:
    report = build_report(_outcome())
    assert list(report) == [
        "rounds", "slashed", "rewards", "model_digest", "digests_by_node", "verify", "plain_torch_accuracy", "seconds",
    ]  # fmt: skip
    assert report["rounds"][0] == {
        "round": 0,
        "accuracy": 0.9,
        "loss": 0.5,
        "accepted": list(HONEST),
        "refused": [{"trainer": POISONER, "reason": "screened: 450 % of the median distance"}],
    }
    assert report["rounds"][1]["refused"] == [
        {"trainer": POISONER, "reason": "claim refuted: segment 8 replays to other bits"}
    ]
    (slashed,) = report["slashed"]
    assert (slashed["account"], slashed["amount"]) == (POISONER, 7)
    assert slashed["reason"].startswith("round 1: claim ")
    assert report["rewards"] == dict(sorted({HONEST[0]: 10, HONEST[1]: 4}.items()))
    assert report["seconds"] == 12.3
    json.dumps(report, allow_nan=False)


def test_a_good_run_has_no_failures() -> None:
    assert _failures(_outcome()) == []
    assert final_accuracy(_outcome().job) == 0.9


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"digests": {HONEST[0]: "00", HONEST[1]: None}}, "digest is not the same"),
        ({"verify": {"height": 1, "verdict": "invalid", "segments_replayed": 0}}, "verify-block says invalid"),
        ({"plain_accuracy": 0.8}, "plain PyTorch measures 80.00 %"),
        ({"plain_accuracy": None}, "plain PyTorch measures -"),
        ({"poisoners": ()}, f"honest node {POISONER[:8]} was slashed"),
        ({"poisoners": (POISONER, HONEST[0])}, f"round 0 took the poisoned update of {HONEST[0][:8]}"),
        ({"rounds": tuple(dataclasses.replace(make_round(n), payments=()) for n in (0, 1))}, "was not slashed"),
        ({"rounds": ()}, "accuracy - is below"),
    ],
)
def test_whatever_goes_wrong_is_named(changes: dict[str, Any], told: str) -> None:
    failures = _failures(_outcome(**changes))
    assert any(told in failure for failure in failures), failures


def test_low_accuracy_void_rounds_and_rejected_jobs_are_failures() -> None:
    assert "accuracy 90.00 % is below 95.00 %" in _failures(_outcome(), accuracy_min=0.95)
    void = dataclasses.replace(make_round(0).outcome, void="too few updates")
    failures = _failures(_outcome(rounds=(dataclasses.replace(make_round(0), outcome=void), _caught(make_round(1)))))
    assert failures == ["round 0 closed void: too few updates"]
    outcome = _outcome()
    rejected = dataclasses.replace(outcome, job={**outcome.job, "status": "rejected", "reason": "no data"})
    assert "the job is rejected: no data" in _failures(rejected)


def test_a_collapse_can_be_what_was_expected() -> None:
    collapsed = _outcome(rounds=(make_round(0, rows=0), make_round(1)), poisoners=(POISONER,))
    assert _failures(collapsed, "collapse", 0.95) == []
    assert _failures(collapsed, "collapse", 0.5) == ["accuracy 90.00 % did not collapse below 50.00 %"]
    lied = {"height": 21, "verdict": "invalid", "segments_replayed": 0}
    assert _failures(dataclasses.replace(collapsed, verify=lied), "collapse", 0.95) == []
    unchecked = dataclasses.replace(collapsed, verify={**lied, "verdict": "unchecked"})
    assert _failures(unchecked, "collapse", 0.95) == ["verify-block could not check the last block"]
    assert _failures(_outcome(digests={}), "nothing") == []


def test_the_summary_names_what_matters() -> None:
    outcome = _outcome()
    text = "\n".join(summarize(build_report(outcome), outcome.job, lambda account: f"<{account[:4]}>"))
    for words in ("accuracy 90.00 %", f"refused <{POISONER[:4]}>", "slashed", "the same on all 5 nodes", "valid"):
        assert words in text


def _snapshots() -> list[Snapshot]:
    statuses = (json.loads(json.dumps(shape_status(make_status()))), None)
    running = json.loads(json.dumps(shape_job(make_job("running", 1))))
    finished = json.loads(json.dumps(shape_job(make_job("finished", 2))))
    return [Snapshot(statuses, None), Snapshot(statuses, running), Snapshot(statuses, finished)]


def test_the_plain_screen_says_each_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen(lambda account: f"<{account[:4]}>", 0.0) as screen:
        for snapshot in _snapshots():
            screen.show(snapshot)
            screen.show(snapshot)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "accuracy 90.00 %" in line]) == 2
    assert len([line for line in lines if f"node 0 verifies <{ACCOUNTS[1].hex()[:4]}>, round 2" in line]) == 1
    assert "finished, 5 trainers, height 12" in lines[-1]


def test_the_live_screen_draws_nodes_rounds_and_words() -> None:
    screen = LiveScreen(lambda account: f"<{account[:4]}>", 0.0)
    console = Console(width=140, record=True, file=io.StringIO())
    for snapshot in _snapshots():
        screen.say("something happened")
        screen.show(snapshot)
        console.print(screen._draw())
    text = console.export_text()
    for words in ("no job yet", "round 1: audit", "does not answer", "verifies", "90.00 %", "something happened"):
        assert words in text


def test_the_folder_goes_after_success_and_stays_after_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with working_folder(None, False) as folder:
        (folder / "file").write_text("")
    assert not folder.exists()
    with pytest.raises(ValueError, match="on purpose"), working_folder(None, False) as folder:
        raise ValueError("on purpose")
    assert folder.exists()
    assert f"{folder}/net/node*/node.log" in capsys.readouterr().err
    folder.rmdir()


def test_a_named_folder_stays_and_sigterm_ends_the_run_like_ctrl_c(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), working_folder(tmp_path, False):
        os.kill(os.getpid(), signal.SIGTERM)
    assert tmp_path.exists()
    assert signal.getsignal(signal.SIGTERM) is before
