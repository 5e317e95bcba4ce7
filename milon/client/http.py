"""A node's HTTP API from Python: one method per route, refusals as `Rejected`."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId
from milon.base.signing import SecretKey
from milon.base.units import Amount, Nonce
from milon.chain.transaction import Action, Transaction, TransactionBody, sign_transaction
from milon.client.refusals import NoNode, Refused
from milon.client.waiting import wait_for

Json = dict[str, Any]

TIMEOUT_S = 20.0  # a node answers reads in milliseconds; this is for a machine under full load
TRANSFER_TIMEOUT_S = 600.0  # between two chunks of a blob, while the node fetches it from its peers
_ATTEMPTS_MAX = 3  # a nonce may be taken by another transaction of the same account meanwhile


class NodeClient:
    """Talks to one node; use it as a context manager, or `close` it."""

    def __init__(self, url: str, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        """`url` as `http://127.0.0.1:PORT`; the token is needed for whatever spends."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        # The node is on this machine: no proxies from the environment, and no certificates to load, which takes longer
        # than most questions.
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=not url.startswith("http:"),
            transport=transport,
            follow_redirects=False,
        )

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise NoNode(
                f"no node answers at {self.url}; start one with `milon join ...`, or name another with --node"
            ) from None
        except httpx.TimeoutException:
            raise NoNode(f"the node at {self.url} did not answer in time; look at its node.log") from None
        except httpx.TransportError as error:
            raise NoNode(f"the node at {self.url} broke off: {error}") from None

    def _ask(self, method: str, path: str, **options: Any) -> Json:
        with self._reaching():
            answer = self._http.request(method, path, **options)
        _raise_refusal(answer)
        shaped: Json = answer.json()
        return shaped

    def status(self) -> Json:
        """The node at a glance."""
        return self._ask("GET", "/v1/status")

    def genesis(self) -> Json:
        """Where the chain starts."""
        return self._ask("GET", "/v1/genesis")

    def jobs(self) -> list[Json]:
        """All jobs, the oldest first, a summary each."""
        found: list[Json] = self._ask("GET", "/v1/jobs")["jobs"]
        return found

    def job(self, job: str) -> Json:
        """One job with its rounds; `job` in hexadecimal."""
        return self._ask("GET", f"/v1/jobs/{job}")

    def find_job(self, name: str) -> Json:
        """The job whose name on the chain starts with `name` (hexadecimal), or the newest one for "latest"."""
        if len(name) == 64:
            return self.job(name)
        jobs = self.jobs()
        found = jobs[-1:] if name == "latest" else [entry for entry in jobs if name and entry["job"].startswith(name)]
        if len(found) != 1:
            count = "no job" if not found else f"{len(found)} jobs"
            raise Rejected(Reason.UNKNOWN, f"{count} on this chain for {name!r}; `milon job list` shows them")
        return self.job(found[0]["job"])

    def report(self, job: str, round_number: int) -> Json:
        """How a closed round's updates became one, by the node's own aggregation; `job` in hexadecimal."""
        return self._ask("GET", f"/v1/jobs/{job}/rounds/{round_number}/report")

    def account(self, account: str) -> Json:
        """One account; `account` in hexadecimal."""
        return self._ask("GET", f"/v1/accounts/{account}")

    def validators(self) -> list[Json]:
        """The members of the running epoch and the candidates for the next, in order of account."""
        found: list[Json] = self._ask("GET", "/v1/validators")["validators"]
        return found

    def validator(self, account: str) -> Json:
        """One account as a validator; `account` in hexadecimal."""
        return self._ask("GET", f"/v1/validators/{account}")

    def block(self, name: str | int) -> Json:
        """A block by height, hash, or "latest"."""
        return self._ask("GET", f"/v1/blocks/{name}")

    def receipt(self, transaction: str) -> Json:
        """What became of a transaction."""
        return self._ask("GET", f"/v1/transactions/{transaction}")

    def stop(self) -> None:
        """Ask the node to end."""
        self._ask("POST", "/v1/stop")

    def submit(self, transaction: Transaction) -> str:
        """Send a signed transaction; its hash."""
        found: str = self._ask("POST", "/v1/transactions", content=encode(transaction))["transaction"]
        return found

    def put_blob(self, path: Path) -> str:
        """Give the node a file to keep and serve; its id."""
        with path.open("rb") as file:
            found: str = self._ask("POST", "/v1/blobs", content=file, timeout=TRANSFER_TIMEOUT_S)["blob"]
        return found

    def get_blob(self, blob: str, path: Path) -> None:
        """Fetch a blob into a file; the file is there whole or not at all. The node has checked it against its id."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            with (
                self._reaching(),
                self._http.stream("GET", f"/v1/blobs/{blob}", timeout=TRANSFER_TIMEOUT_S) as answer,
            ):
                if answer.is_error:
                    answer.read()
                _raise_refusal(answer)
                with temporary.open("xb") as file:
                    for chunk in answer.iter_bytes(1 << 20):
                        file.write(chunk)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def send(self, key: SecretKey, action: Action, fee: int = 1) -> str:
        """Sign and submit an action with the account's next nonce; its hash."""
        chain_id: str = self.status()["chain_id"]
        attempts = 0
        while True:
            nonce = Nonce(self.account(key.account.hex())["nonce"])
            body = TransactionBody(chain_id, AccountId(key.account), nonce, Amount(fee), action)
            attempts += 1
            try:
                return self.submit(sign_transaction(key, body))
            except Rejected as refusal:
                if refusal.reason is not Reason.WRONG_NONCE or attempts == _ATTEMPTS_MAX:
                    raise

    def wait_receipt(self, transaction: str, timeout_s: float = 60.0) -> Json:
        """The receipt once the transaction is in a final block; `Refused` with the chain's reason where it failed."""
        receipt = wait_for(lambda: self._final_receipt(transaction), timeout_s)
        if receipt is None:
            late = f"transaction {transaction[:8]} is in no final block yet; it stays valid and may still take effect"
            raise Rejected(Reason.UNAVAILABLE, late)
        if receipt["problem"]:
            raise parse_problem(receipt["problem"])
        return receipt

    def _final_receipt(self, transaction: str) -> Json | None:
        try:
            receipt = self.receipt(transaction)
        except Refused as refusal:
            if refusal.reason is Reason.UNKNOWN:
                return None  # it has left the mempool with a block whose receipts the node has not read yet
            raise
        return None if receipt["status"] == "pending" else receipt


def parse_problem(problem: str) -> Refused:
    """A receipt's `reason: detail` as the refusal it was."""
    name, _, detail = problem.partition(": ")
    try:
        return Refused(Reason(name), detail)
    except ValueError:
        return Refused(Reason.NOT_ALLOWED, problem)


def _raise_refusal(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        found = answer.json()
        refusal = Refused(Reason(found["reason"]), str(found["detail"]))
    except (ValueError, KeyError, TypeError):
        refusal = Refused(Reason.UNAVAILABLE, f"the node answered {answer.status_code}: {answer.text[:200]!r}")
    raise refusal
