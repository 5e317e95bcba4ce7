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
from typing import Any

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.signing import SecretKey
from milon.base.units import Amount
from milon.chain.transaction import SubmitJob
from milon.client.http import NodeClient
from milon.pol.terms import JobSpec

RECEIPT_TIMEOUT_S = 60.0  # many blocks

PREPARE = "milon.client.prepare"  # these load torch, and so run as processes of their own
MODEL = "milon.client.model"


@dataclass(frozen=True, slots=True)
class Captured:
    """A job ready to be sent."""

    spec: JobSpec  # what the transaction carries
    reward: int  # coins to lock
    blobs: tuple[Path, ...]  # files named by their ids


def run_module(module: str, arguments: list[str]) -> dict[str, Any]:
    """Run a module as a process; the JSON it prints last. `Rejected` where it gives up; it has said why itself."""
    # It shares the terminal's process group, so that Ctrl-C reaches it too.
    ran = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise Rejected(Reason.DOES_NOT_FIT, f"{module} gave up with {ran.returncode}; see above")
    answer: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return answer


@contextlib.contextmanager
def capture(file: Path, options: Mapping[str, str]) -> Iterator[Captured]:
    """Run the user's file and capture its job into a folder that is gone afterwards; `options` by long name."""
    with tempfile.TemporaryDirectory(prefix="milon-job-") as name:
        folder = Path(name)
        arguments = [str(file), "--out", name, *(f"--{option}={value}" for option, value in options.items())]
        summary = run_module(PREPARE, arguments)
        spec = decode(JobSpec, (folder / "spec.cbor").read_bytes())
        blobs = tuple(path for path in sorted(folder.iterdir()) if len(path.name) == 64)
        yield Captured(spec, int(summary["reward"]), blobs)


def send(client: NodeClient, signer: SecretKey, captured: Captured, fee: int) -> dict[str, Any]:
    """Hand the blobs to the node, then the transaction; its receipt. Blobs without a job are dropped by the node."""
    for path in captured.blobs:
        blob = client.put_blob(path)
        require(blob == path.name, Reason.DIFFERS, f"the node named {path.name[:8]} differently: {blob[:8]}")
    transaction = client.send(signer, SubmitJob(captured.spec, Amount(captured.reward)), fee)
    return client.wait_receipt(transaction, RECEIPT_TIMEOUT_S)


def export_model(state: Path, predict: Path, out: Path) -> dict[str, Any]:
    """Write the model in a state file as a safetensors file, by its prediction program's names; what was written."""
    return run_module(MODEL, ["export", str(state), str(predict), str(out)])
