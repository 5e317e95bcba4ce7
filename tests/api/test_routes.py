"""The routes over real HTTP: what they answer, and what they refuse."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from milon.base.codec import decode, encode
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Nonce
from milon.chain.genesis import Genesis
from milon.chain.transaction import Transaction, TransactionBody, Transfer, compute_transaction_hash, sign_transaction
from tests.api.fake_node import ACCOUNTS, GENESIS, JOB
from tests.api.serving import BLOB_BYTES_MAX, TOKEN, Served, serving

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


def _transfer(nonce: int = 0) -> Transaction:
    key = secret_key_from("node 0")
    body = TransactionBody("fake-1", key.account, Nonce(nonce), Amount(1), Transfer(ACCOUNTS[1], Amount(5)))
    return sign_transaction(key, body)


def test_reads_need_no_token(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        assert http.get("/v1/status").json()["height"] == 12
        assert [job["job"] for job in http.get("/v1/jobs").json()["jobs"]] == [JOB.hex()]
        assert http.get(f"/v1/jobs/{JOB.hex()}").json()["rounds"][0]["outcome"]["accuracy"] == 0.9
        assert http.get(f"/v1/accounts/{ACCOUNTS[0].hex()}").json()["balance"] == 500
        validators = http.get("/v1/validators").json()["validators"]
        assert [entry["account"] for entry in validators] == [account.hex() for account in ACCOUNTS]
        assert http.get(f"/v1/validators/{ACCOUNTS[1].hex()}").json() == validators[1]
        latest = http.get("/v1/blocks/latest").json()
        assert latest["header"]["height"] == 12
        assert http.get("/v1/blocks/12").json() == http.get(f"/v1/blocks/{latest['hash']}").json() == latest
        assert decode(Genesis, http.get("/v1/genesis.cbor").content) == GENESIS


def test_a_rounds_aggregation_is_told(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        found = http.get(f"/v1/jobs/{JOB.hex()}/rounds/0/report").json()
    assert (found["round"], found["is_agreed"], found["void"]) == (0, True, "")
    assert found["report"]["pipeline"] == "arc,multi-krum"
    assert [standing["reason"] for standing in found["report"]["standings"]] == ["", "far"]
    assert len(found["finals"]) == 2


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"/v1/jobs/{JOB.hex()}/rounds/1/report", 404, "unknown"),
        (f"/v1/jobs/{JOB.hex()}/rounds/x/report", 400, "malformed"),
        ("/v1/jobs/" + "00" * 32, 404, "unknown"),
        ("/v1/jobs/zz", 400, "malformed"),
        ("/v1/accounts/00", 400, "malformed"),
        ("/v1/validators/00", 400, "malformed"),
        ("/v1/blocks/999", 404, "unknown"),
        ("/v1/blocks/9999999999999999999999", 400, "malformed"),
        ("/v1/blocks/²", 400, "malformed"),
        ("/v1/transactions/" + "00" * 32, 404, "unknown"),
        ("/v1/blobs/" + "00" * 32, 503, "unavailable"),
        ("/v1/nothing", 404, "unknown"),
        ("/", 404, "unknown"),
    ],
)
def test_what_is_not_there_is_refused_with_a_reason(served: Served, path: str, status: int, reason: str) -> None:
    answer = httpx.get(served.url + path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/transactions", "/v1/blobs", "/v1/stop"])
@pytest.mark.parametrize("shown", [None, "", "Bearer", "Bearer " + "cd" * 32, f"Basic {TOKEN}", "Bearer ü"])
def test_what_spends_needs_the_token(served: Served, path: str, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode()}
    answer = httpx.post(served.url + path, content=encode(_transfer()), headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "not-allowed")
    assert not served.node.sent
    assert not served.node.is_stopped


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "["])
def test_a_rebound_name_is_refused(served: Served, host: str) -> None:
    answer = httpx.get(served.url + "/v1/status", headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert "height" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:9", "[::1]:80", "[::1]"])
def test_names_of_this_machine_are_taken(served: Served, host: str) -> None:
    assert httpx.get(served.url + "/v1/status", headers={"Host": host}).status_code == 200


def test_a_web_page_is_refused_even_with_the_token(served: Served) -> None:
    headers = {**AUTHORIZED, "Origin": "http://localhost:3000"}
    assert httpx.post(served.url + "/v1/stop", headers=headers).status_code == 403
    assert not served.node.is_stopped


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("none", 200)])
def test_an_address_embedded_in_a_web_page_is_refused(served: Served, site: str, status: int) -> None:
    """As `<img src="http://127.0.0.1:...">` asks: without an origin, and the node would fetch a blob for it."""
    assert httpx.get(served.url + "/v1/status", headers={"Sec-Fetch-Site": site}).status_code == status


def test_a_transaction_is_taken_once_and_then_has_a_receipt(served: Served) -> None:
    transaction = _transfer()
    url = served.url + "/v1/transactions"
    answer = httpx.post(url, content=encode(transaction), headers=AUTHORIZED)
    name = compute_transaction_hash(transaction).hex()
    assert (answer.status_code, answer.json()) == (202, {"transaction": name})
    assert httpx.get(f"{url}/{name}").json()["status"] == "done"
    again = httpx.post(url, content=encode(transaction), headers=AUTHORIZED)
    assert (again.status_code, again.json()["reason"]) == (400, "wrong-nonce")
    assert served.node.sent == [transaction]


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "malformed"),
        (b"\xff" * 50, 400, "malformed"),
        (bytes(65 << 10), 413, "too-large"),
        (encode(GENESIS), 400, "wrong-type"),
    ],
)
def test_bytes_that_are_no_transaction_are_refused(served: Served, content: bytes, status: int, reason: str) -> None:
    answer = httpx.post(served.url + "/v1/transactions", content=content, headers=AUTHORIZED)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert httpx.get(served.url + "/v1/status").status_code == 200


def test_a_blob_goes_in_and_comes_out(served: Served, tmp_path: Path) -> None:
    raw = os.urandom(700_000)
    answer = httpx.post(served.url + "/v1/blobs", content=raw, headers=AUTHORIZED)
    assert answer.status_code == 201
    assert httpx.get(f"{served.url}/v1/blobs/{answer.json()['blob']}").content == raw
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_beyond_the_limit_leaves_nothing(served: Served, tmp_path: Path) -> None:
    answer = httpx.post(served.url + "/v1/blobs", content=bytes(BLOB_BYTES_MAX + 1), headers=AUTHORIZED)
    assert (answer.status_code, answer.json()["reason"]) == (413, "too-large")
    assert not list((tmp_path / "uploads").iterdir())
    assert not list((tmp_path / "blobs").iterdir())


def test_stop_reaches_the_node(served: Served) -> None:
    assert httpx.post(served.url + "/v1/stop", headers=AUTHORIZED).status_code == 202
    assert served.node.is_stopped


def test_a_wrong_method_is_refused(served: Served) -> None:
    answer = httpx.post(served.url + "/v1/status", headers=AUTHORIZED)
    assert (answer.status_code, answer.json()["reason"]) == (405, "unknown")
