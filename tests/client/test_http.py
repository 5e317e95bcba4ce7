"""The client against a served fake node, and against nobody."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import JobId
from milon.base.signing import secret_key_from
from milon.base.units import Amount
from milon.chain.transaction import Transfer
from milon.client.http import NodeClient
from milon.client.refusals import NoNode, Refused
from tests.api.fake_node import ACCOUNTS, JOB, make_job
from tests.api.serving import TOKEN, Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


def test_it_reads_what_the_node_shows(served: Served) -> None:
    with NodeClient(served.url) as client:
        assert client.status()["height"] == 12
        assert client.genesis()["chain_id"] == "fake-1"
        assert client.block(3)["header"]["height"] == client.block("latest")["header"]["height"] - 9
        assert client.account(ACCOUNTS[0].hex())["nonce"] == 0


def test_jobs_are_found_by_their_first_digits(served: Served) -> None:
    other = JobId(bytes([8]) * 32)
    served.node.jobs_by_id[other] = make_job(job=other)
    with NodeClient(served.url) as client:
        assert client.find_job("07")["job"] == client.find_job(JOB.hex())["job"] == JOB.hex()
        assert client.find_job("latest")["job"] == other.hex()
        for name in ("0", "", "09"):
            with pytest.raises(Rejected) as refusal:
                client.find_job(name)
            assert refusal.value.reason is Reason.UNKNOWN


def test_it_signs_with_the_next_nonce(served: Served) -> None:
    key = secret_key_from("somebody")
    with NodeClient(served.url, TOKEN) as client:
        for _ in range(2):
            receipt = client.wait_receipt(client.send(key, Transfer(ACCOUNTS[0], Amount(3))))
            assert receipt["height"] == 12
    assert [transaction.body.nonce for transaction in served.node.sent] == [0, 1]


def test_a_refusal_keeps_its_reason(served: Served) -> None:
    key = secret_key_from("somebody")
    with NodeClient(served.url) as client, pytest.raises(Rejected) as refusal:
        client.send(key, Transfer(ACCOUNTS[0], Amount(3)))
    assert refusal.value.reason is Reason.NOT_ALLOWED
    served.node.problem = "insufficient-funds: 3 where 0 are"
    with NodeClient(served.url, TOKEN) as client, pytest.raises(Refused) as refusal:
        client.wait_receipt(client.send(key, Transfer(ACCOUNTS[0], Amount(3))))
    assert (refusal.value.reason, refusal.value.detail) == (Reason.INSUFFICIENT_FUNDS, "3 where 0 are")


def test_blobs_travel_whole_or_not_at_all(served: Served, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 1_000)
    with NodeClient(served.url, TOKEN) as client:
        client.get_blob(client.put_blob(source), target)
        assert target.read_bytes() == source.read_bytes()
        before = sorted(tmp_path.iterdir())
        with pytest.raises(Rejected) as refusal:
            client.get_blob("00" * 32, tmp_path / "other")
    assert refusal.value.reason is Reason.UNAVAILABLE
    assert sorted(tmp_path.iterdir()) == before


def test_a_proxy_in_the_environment_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with NodeClient(served.url) as client:
        assert client.status()["chain_id"] == "fake-1"


def test_nobody_there_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with NodeClient(url) as client, pytest.raises(NoNode) as failure:
            client.status()
    assert url in str(failure.value)
    assert "milon join" in str(failure.value)


def test_an_answer_that_is_no_json_is_a_refusal() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(500, text="Internal Server Error"))
    with NodeClient("http://127.0.0.1:1", transport=transport) as client, pytest.raises(Rejected) as refusal:
        client.status()
    assert "500" in refusal.value.detail


def test_waiting_for_a_receipt_ends_at_its_deadline(served: Served) -> None:
    with NodeClient(served.url) as client, pytest.raises(Rejected) as refusal:
        client.wait_receipt("00" * 32, 0.0)
    assert refusal.value.reason is Reason.UNAVAILABLE
    assert "may still take effect" in refusal.value.detail
