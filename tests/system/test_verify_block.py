"""`milon verify-block` from an empty folder: a lie that a whole network took is named; what is missing is said so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.live import PATIENT, Json, Live, Ran, Running, live_network, run_milon, wait_for

pytestmark = pytest.mark.system

LIAR, FRIEND = 1, 0
TERMS = ("--aggregator", "mean", "--term", "faulty-count=0", "--term", "trainers-min=2", "--term", "trainers-target=2")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One liar, and one friend whose replays attest to whatever is claimed: together the whole stake."""
    root = tmp_path_factory.mktemp("lie") / "net"
    liars = ("--adversary", f"{LIAR}=noise", "--adversary", f"{FRIEND}=accept")
    with live_network(root, 2, *liars) as found:
        yield found


@pytest.fixture(scope="module")
def job(network: Live) -> Json:
    """A job of one fully audited round, finished."""
    return network.wait_finished(0, network.submit("--rounds", "1", "--audit", "1", *TERMS, *PATIENT))


@pytest.fixture(scope="module")
def status(network: Live) -> Json:
    """Address and genesis hash: all that a visitor knows."""
    found = network.status(0)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def search(network: Live, job: Json, status: Json) -> Iterator[Running]:
    """A verification that has begun after all states were deleted everywhere; it looks for them for a while."""
    for folder in network.folders:
        shutil.rmtree(folder.blobs)
        folder.blobs.mkdir(mode=0o700)
    with Running(*words_of(status, job["rounds"][0]["height"]), "--patience", "8") as running:
        yield running


def words_of(status: Json, name: object, genesis_hash: str = "") -> tuple[str, ...]:
    """The command, in a temporary folder of its own."""
    known = ("--bootstrap", status["addresses"][0], "--genesis-hash", genesis_hash or status["genesis_hash"])
    return ("verify-block", str(name), *known)


def verify(status: Json, name: object, *options: str, genesis_hash: str = "") -> Ran:
    """Run `milon verify-block`."""
    return run_milon(*words_of(status, name, genesis_hash), *options, codes=(0, 1, 2))


def test_a_lie_that_everybody_accepted_is_named(network: Live, job: Json, status: Json) -> None:
    closed = job["rounds"][0]
    claim = next(entry for entry in closed["claims"] if entry["trainer"] == network.accounts[LIAR])
    assert claim["status"] == "accepted" and sum(claim["replays"]) == claim["count"]  # the chain has been fooled
    ran = verify(status, closed["height"])
    assert ran.code == 1 and ran.answer["verdict"] == "invalid"
    assert ran.answer["claim"] == claim["claim"] and ran.answer["trainer"] == claim["trainer"]
    assert claim["first"] <= ran.answer["segment"] < claim["first"] + claim["count"]
    assert f"segment {ran.answer['segment']} replays to" in ran.answer["detail"]


def test_a_block_that_learns_nothing_is_valid_by_its_certificate(status: Json, job: Json, search: Running) -> None:
    ran = verify(status, 1)
    assert ran.code == 0 and ran.answer["verdict"] == "valid"
    assert ran.answer["segments_replayed"] == 0 and any("closes no round" in line for line in ran.answer["not_proved"])


def test_another_genesis_hash_is_refused(status: Json, job: Json, search: Running) -> None:
    ran = verify(status, job["rounds"][0]["height"], genesis_hash="00" * 32)
    assert ran.code == 2 and ran.answer["error"]["detail"]


def test_a_block_that_is_not_there_is_said_so(status: Json, job: Json, search: Running) -> None:
    ran = verify(status, 1_000_000)
    assert ran.code == 2 and ran.answer["error"]["detail"]


def test_a_folder_that_is_not_empty_is_left_alone(status: Json, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    ran = verify(status, 1, "--data", str(tmp_path))
    assert ran.code == 2 and "not empty" in ran.answer["error"]["detail"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_states_that_nobody_has_are_missing_not_lies(network: Live, search: Running) -> None:
    ran = search.end(codes=(2,))
    assert ran.answer["error"]["reason"] == "unavailable"
    network.assert_all_run()


def test_a_network_that_is_down_is_said_so(network: Live, job: Json, status: Json) -> None:
    """Last, for it ends the network."""
    network.down()
    wait_for("no node runs", lambda: all(network.status(index) is None for index in range(2)))
    ran = verify(status, job["rounds"][0]["height"])
    assert ran.code == 2 and "no bootstrap address answers" in ran.answer["error"]["detail"]
