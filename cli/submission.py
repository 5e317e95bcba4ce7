"""From a user's file to a job on the chain: capture in a process of its own, upload, sign, wait for the receipt."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milon.base.signing import SecretKey
    from milon.client.http import NodeClient
    from milon.pol.terms import JobSpec

RECEIPT_TIMEOUT_S = 60.0  # many blocks


@dataclass(frozen=True, slots=True)
class Captured:
    """A job ready to be sent."""

    spec: JobSpec  # what the transaction carries
    reward: int  # coins to lock
    blobs: tuple[Path, ...]  # files named by their ids


def run_client(module: str, arguments: list[str]) -> dict[str, Any]:
    """Run a module of `milon.client` that needs torch; the JSON it prints. `Rejected` where it says what is wrong."""
    from milon.base.errors import Reason, Rejected

    # It shares the terminal's process group, so that Ctrl-C reaches it too.
    ran = subprocess.run(
        [sys.executable, "-m", f"milon.client.{module}", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if ran.returncode != 0:
        raise Rejected(Reason.DOES_NOT_FIT, f"milon.client.{module} gave up with {ran.returncode}; see above")
    answer: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return answer


@contextlib.contextmanager
def capture(file: Path, options: Mapping[str, str]) -> Iterator[Captured]:
    """Run the user's file and capture its job into a folder that is gone afterwards."""
    from milon.base.codec import decode
    from milon.pol.terms import JobSpec

    with tempfile.TemporaryDirectory(prefix="milon-job-") as name:
        folder = Path(name)
        arguments = [str(file), "--out", name, *(f"--{option}={value}" for option, value in options.items())]
        summary = run_client("prepare", arguments)
        spec = decode(JobSpec, (folder / "spec.cbor").read_bytes())
        blobs = tuple(path for path in sorted(folder.iterdir()) if len(path.name) == 64)
        yield Captured(spec, int(summary["reward"]), blobs)


def send(client: NodeClient, signer: SecretKey, captured: Captured, fee: int) -> dict[str, Any]:
    """Hand the blobs to the node, then the transaction; its receipt. Blobs without a job are dropped by the node."""
    from milon.base.errors import Reason, require
    from milon.base.units import Amount
    from milon.chain.transaction import SubmitJob

    for path in captured.blobs:
        blob = client.put_blob(path)
        require(blob == path.name, Reason.DIFFERS, f"the node named {path.name[:8]} differently: {blob[:8]}")
    transaction = client.send(signer, SubmitJob(captured.spec, Amount(captured.reward)), fee)
    return client.wait_receipt(transaction, RECEIPT_TIMEOUT_S)
