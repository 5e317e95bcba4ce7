"""Hostile input to a live node: refused with a reason, the node alive, the state unchanged."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Nonce
from milon.chain.transaction import Action, SubmitJob, Transaction, TransactionBody, Transfer, sign_transaction
from milon.client.http import NodeClient
from milon.node.config import load_config, save_config
from milon.node.folder import NodeFolder
from milon.node.keys import load_key
from milon.pol.terms import JobSpec
from milon_cli.processes import find_process, start_node, stop_nodes
from tests.system.in_process import EXAMPLE
from tests.system.live import MLP_JOB, REPOSITORY, Json, Live, group_members, wait_for
from tests.system.strangers import Target, attack, make_attacks, overhear

pytestmark = pytest.mark.system

VICTIM = 1
POOR = secret_key_from("an account without a coin")


@pytest.fixture
def target(network: Live) -> Target:
    """The attacked node."""
    status = network.status(VICTIM)
    assert status is not None
    return Target(status["addresses"][0], bytes.fromhex(status["genesis_hash"]))


@pytest.fixture
def spender(network: Live) -> Iterator[NodeClient]:
    """The victim's API with its token."""
    with network.client(VICTIM, is_spending=True) as client:
        yield client


def read_state(network: Live) -> Json:
    """All money and all jobs: what a refused input may not change."""
    names = [*network.accounts, load_key(network.files.submitter_key).account.hex(), POOR.account.hex()]

    def ask(client: NodeClient) -> Json:
        supply = {name: client.status()[name] for name in ("minted", "burned")}
        return {"accounts": [client.account(name) for name in names], "jobs": client.jobs(), **supply}

    found: Json = network.ask(VICTIM, ask)
    assert found is not None
    return found


def wait_height(network: Live, height: int) -> None:
    """Wait until the victim is there."""
    wait_for(f"height {height}", lambda: (network.status(VICTIM) or {"height": 0})["height"] >= height)


@contextlib.contextmanager
def unchanged(network: Live) -> Iterator[None]:
    """Whatever happens inside, the same processes go on making blocks, and nobody's money or job changes."""
    wait_for("no transaction waits", lambda: (network.status(VICTIM) or {}).get("mempool_count") == 0)
    before, pids = read_state(network), [network.pid(index) for index in range(4)]
    yield
    status = network.status(VICTIM)
    assert status is not None
    wait_height(network, status["height"] + 2)
    assert [network.pid(index) for index in range(4)] == pids
    assert read_state(network) == before


def sign(network: Live, action: Action, nonce: int, key: object = None, chain_id: str = "") -> Transaction:
    """A transaction of the submitter, or of `key`."""
    signer = key or load_key(network.files.submitter_key)
    body = TransactionBody(chain_id or "honest", signer.account, Nonce(nonce), Amount(1), action)
    return sign_transaction(signer, body)


def next_nonce(spender: NodeClient, network: Live) -> int:
    """Of the submitter."""
    return int(spender.account(load_key(network.files.submitter_key).account.hex())["nonce"])


def test_frames_of_all_kinds_on_all_protocols(network: Live, target: Target) -> None:
    chance = random.Random(2)
    spoken: list[bool] = []

    async def main() -> None:
        heard = await overhear(target, "listener", 30)
        attacks = list(make_attacks(target, heard, chance))
        assert len(attacks) > 60
        limit = trio.CapacityLimiter(12)
        async with trio.open_nursery() as nursery:
            for number, (protocol, greets, raw) in enumerate(attacks):

                async def run(name: str, protocol: str, greets: bool, raw: bytes) -> None:
                    async with limit:
                        spoken.append(await attack(target, name, protocol, greets, raw))

                nursery.start_soon(run, f"attacker {number}", protocol, greets, raw)

    with unchanged(network):
        trio.run(main)
    assert sum(spoken) > 0.9 * len(spoken), f"only {sum(spoken)} of {len(spoken)} attackers got a word in"
    log = network.folders[VICTIM].log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3_000]


def test_transactions_that_cannot_be(network: Live, spender: NodeClient) -> None:
    pay = Transfer(AccountId(bytes(32)), Amount(5))
    nonce = next_nonce(spender, network)
    forged = replace(sign(network, pay, nonce), signature=bytes(64))
    cases = [
        (Reason.WRONG_CHAIN, sign(network, pay, nonce, chain_id="another")),
        (Reason.BAD_SIGNATURE, forged),
        (Reason.INSUFFICIENT_FUNDS, sign(network, pay, 0, key=POOR)),
        (Reason.INSUFFICIENT_FUNDS, sign(network, SubmitJob(make_spec(network), Amount(10**6)), 0, key=POOR)),
    ]
    if nonce:
        cases.append((Reason.WRONG_NONCE, sign(network, pay, nonce - 1)))
    with unchanged(network):
        for reason, transaction in cases:
            with pytest.raises(Rejected) as caught:
                spender.submit(transaction)
            assert caught.value.reason is reason and caught.value.detail


def make_spec(network: Live) -> JobSpec:
    """Of the small job."""
    return prepare(network.root.parent / "spec", MLP_JOB)[0]


def test_a_double_spend_takes_effect_once(network: Live, spender: NodeClient) -> None:
    """The same nonce spent twice, at two nodes at once: both may take theirs, the chain takes one."""
    nonce, to = next_nonce(spender, network), [AccountId(bytes((7, index)) * 16) for index in range(2)]
    first, second = (sign(network, Transfer(account, Amount(11)), nonce) for account in to)
    with network.client(2, is_spending=True) as other:
        spender.submit(first)
        with contextlib.suppress(Rejected):  # where the other node has heard of the first
            other.submit(second)
    balances = wait_for("one of the transfers", lambda: paid(spender, to))
    assert sorted(balances) == [0, 11]
    height = spender.status()["height"]
    wait_for("three blocks more", lambda: spender.status()["height"] >= height + 3)
    assert paid(spender, to) == balances and next_nonce(spender, network) == nonce + 1
    for transaction in (first, second):
        with pytest.raises(Rejected) as caught:
            spender.submit(transaction)
        assert caught.value.reason is Reason.WRONG_NONCE


def paid(client: NodeClient, accounts: list[AccountId]) -> list[int] | None:
    """Their balances, once one of them has any."""
    found = [int(client.account(account.hex())["balance"]) for account in accounts]
    return found if any(found) else None


def test_requests_without_the_right_token(network: Live, spender: NodeClient) -> None:
    transaction = sign(network, Transfer(AccountId(bytes(32)), Amount(5)), next_nonce(spender, network))
    with unchanged(network):
        for token in ("", "0" * 64, (network.folders[0].token.read_text().strip())):
            with NodeClient(spender.url, token) as client:
                for ask in (lambda: client.submit(transaction), client.stop):
                    with pytest.raises(Rejected) as caught:
                        ask()
                    assert caught.value.reason is Reason.NOT_ALLOWED


def prepare(folder: Path, file: Path, *options: str) -> tuple[JobSpec, int, dict[str, Path]]:
    """A job as the user's machine prepares it: spec, reward, blobs by name; once per folder."""
    if not (folder / "spec.cbor").exists():
        command = [sys.executable, "-m", "milon.client.prepare", str(file), "--out", str(folder), *options]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    spec = decode(JobSpec, (folder / "spec.cbor").read_bytes())
    return spec, 10**6, {path.name: path for path in folder.iterdir() if len(path.name) == 64}


def submit_and_see_rejected(network: Live, spender: NodeClient, spec: JobSpec, reward: int) -> str:
    """Why the chain rejected the job; its whole reward is back."""
    key = load_key(network.files.submitter_key)
    balance = spender.account(key.account.hex())["balance"]
    job = spender.send(key, SubmitJob(spec, Amount(reward)))
    spender.wait_receipt(job)
    wait_for("the job's end", lambda: spender.job(job)["status"] == "rejected")
    assert spender.account(key.account.hex())["balance"] == balance - 1  # the fee
    reason: str = spender.job(job)["reason"]
    return reason


def test_jobs_that_are_wrong_are_rejected_by_the_chain(network: Live, spender: NodeClient, tmp_path: Path) -> None:
    """Made by hand, past the client's own checks: NaN in the first state, data of another shape, too dear a step."""
    spec, reward, blobs = prepare(network.root.parent / "spec", MLP_JOB)
    large, _, large_blobs = prepare(tmp_path / "large", EXAMPLE)
    raw = bytearray(blobs[spec.initial_state.hex()].read_bytes())
    raw[-4:] = b"\x00\x00\xc0\x7f"  # a quiet NaN, where the last tensor ends
    poisoned = tmp_path / "state"
    poisoned.write_bytes(raw)
    uploaded = {name: spender.put_blob(path) for name, path in {**blobs, **large_blobs}.items()}
    assert all(name == blob for name, blob in uploaded.items())
    bad_state = Digest(bytes.fromhex(spender.put_blob(poisoned)))
    pids = [network.pid(index) for index in range(4)]

    jobs = {
        Reason.NOT_FINITE: replace(spec, initial_state=bad_state),
        Reason.DOES_NOT_FIT: replace(spec, train_rows=large.train_rows, evaluation_rows=large.evaluation_rows),
        Reason.OVER_BUDGET: large,
        Reason.MALFORMED: replace(spec, train=spec.initial_state),
    }
    for reason, wrong in jobs.items():
        told = submit_and_see_rejected(network, spender, wrong, reward)
        assert told.startswith(f"{reason.value}: ") and len(told) > 30, told
    assert [network.pid(index) for index in range(4)] == pids


def test_one_folder_runs_one_node(network: Live) -> None:
    command = [sys.executable, "-m", "milon_cli", "join", "--data", str(network.folders[VICTIM].root)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2 and "(in-use)" in ran.stderr, ran.stderr


def test_a_second_node_with_the_same_key(network: Live, tmp_path: Path) -> None:
    """A copy of node 3's keys on other ports: one of the two ends and says why, and the chain goes on.

    It is the newcomer, unless the original started only just before it: neither can know which of them is older,
    and the first to hear of the other ends.
    """
    original, copy = network.folders[3], NodeFolder(tmp_path / "twin")
    copy.make()
    shutil.copytree(original.root / "keys", copy.root / "keys", dirs_exist_ok=True)
    shutil.copy(original.genesis, copy.genesis)
    shutil.copy(original.token, copy.token)
    save_config(copy, replace(load_config(original), listen_port=0, api_port=0))
    start = (network.status(VICTIM) or {})["height"]
    known = "another node runs with this host key"
    try:
        start_node(copy)
        wait_for("one of the two has ended", lambda: any(find_process(folder) is None for folder in (copy, original)))
        ended = [folder for folder in (copy, original) if find_process(folder) is None]
        assert all(known in folder.log.read_text() for folder in ended)
    finally:
        stop_nodes([copy])
    network.up()
    wait_height(network, start + 4)
    network.wait_same_tip()


def test_a_node_with_a_clock_that_is_off(network: Live) -> None:
    """Node 3 an hour ahead: its blocks come from the future and are passed over; the others go on."""
    folder = network.folders[3]
    stop_nodes([folder])
    shifted = (
        "import sys, time; real = time.time_ns; time.time_ns = lambda: real() + 3_600_000_000_000; "
        "from milon_cli.app import main; sys.exit(main())"
    )
    with folder.log.open("ab") as log:
        command = [sys.executable, "-c", shifted, "join", "--data", str(folder.root)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for("node 3 answers", lambda: network.status(3))
        start = (network.status(VICTIM) or {})["height"]
        wait_height(network, start + 6)
        for height in range(start + 2, start + 7):
            header = (network.block(VICTIM, height) or {})["header"]
            assert header["time_ms"] <= time.time() * 1000 + 6_000
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
    assert find_process(folder) is None and not group_members(process.pid)
    network.up()
    network.wait_same_tip()
