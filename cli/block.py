"""`milon verify-block` and `milon block`: check a block from nothing, or look at one."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milon.client.devices import AUTO, verify_device

from .connection import open_node
from .exits import Exit
from .options import DEFAULT_NODE, BootstrapOption, DeviceOption, JsonOption, NodeOption
from .output import print_json, print_lines, print_pairs

if TYPE_CHECKING:
    from milon.base.ids import Digest
    from milon.base.units import Height
    from milon.node.verify import VerifyReport

_noun = typer.Typer(help="Blocks of the chain.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.command("verify-block", epilog="Example: milon verify-block 42 --bootstrap ADDRESS --genesis-hash HASH")(verify)
    app.add_typer(_noun, name="block")


@_noun.callback()
def root_of_noun() -> None:
    """Blocks of the chain."""


@_noun.command(epilog="Example: milon block show latest")
def show(
    name: Annotated[str, typer.Argument(help='Height, hash or "latest".')],
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Show a block as a node holds it."""
    with open_node(root) as client:
        found = client.block(name)
    if as_json:
        print_json(found)
        return
    header = found["header"]
    print_pairs(
        [
            ("height", header["height"]),
            ("hash", found["hash"]),
            ("parent", header["parent_hash"]),
            ("proposer", header["proposer"]),
            ("time", header["time_ms"]),
            ("transactions", f"{found['transaction_count']}, {found['refused_count']} refused"),
            ("final", f"{found['is_final']}, power {found['certificate_power']} of {found['total_power']}"),
        ]
    )
    print_lines(f"closes round {closed['round']} of job {closed['job'][:8]}" for closed in found["closed"])


def parse_block_name(text: str) -> Height | Digest:
    """A height, or a hash of 64 hexadecimal digits; a usage error for anything else."""
    from milon.base.ids import Digest
    from milon.base.units import Height

    if text.isascii() and text.isdigit() and len(text) < 19:
        return Height(int(text))
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise typer.BadParameter(f"{text[:80]!r} is neither a height nor a hash of 64 hexadecimal digits")
    return Digest(raw)


def verify(
    name: Annotated[str, typer.Argument(help="Height or hash of the block.")],
    bootstrap: BootstrapOption = None,
    genesis_hash: Annotated[str, typer.Option(help="The chain's genesis hash: all that has to be trusted.")] = "",
    segments: Annotated[int | None, typer.Option(min=0, help="Segments to replay; all where left out.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the replays; results do not depend on it.")] = 1,
    patience_s: Annotated[int, typer.Option("--patience", min=1, help="Seconds to look for each state.")] = 60,
    device: DeviceOption = AUTO,
    data: Annotated[
        Path | None, typer.Option(help="An empty folder to work in; one that vanishes if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a block from nothing: certificates up to it, its rounds' claims by replay, and the aggregate.

    Exit codes: 0 valid; 1 invalid, naming claim and segment; 2 it cannot be checked, and why.
    """
    from milon.base.errors import Reason, require
    from milon.node.config import parse_digest, verify_multiaddress

    block = parse_block_name(name)
    require(bool(bootstrap), Reason.UNAVAILABLE, "from whom? give --bootstrap with the address of a running node")
    addresses = tuple(bootstrap or ())
    for address in addresses:
        verify_multiaddress(address)
    trusted = parse_digest("--genesis-hash", genesis_hash)
    verify_device(device)
    with contextlib.ExitStack() as stack:
        if data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="milon-verify-")))
        else:
            folder = data
            is_empty = not data.exists() or not any(data.iterdir())
            require(is_empty, Reason.DUPLICATE, f"{data} is not empty; name another folder")
            data.mkdir(parents=True, exist_ok=True)
        question = Question(addresses, trusted, block, segments, threads, float(patience_s), device)
        report = _verify(folder, question, as_json)
    _print_report(report, as_json)
    raise typer.Exit(Exit.OK if report.verdict == "valid" else Exit.NO)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be verified."""

    bootstrap: tuple[str, ...]  # addresses of running nodes
    genesis_hash: Digest  # of the chain
    block: Height | Digest  # which
    segments: int | None  # to replay at most; None: all
    threads: int  # of the replays
    patience_s: float = 60.0  # to look for each state
    device: str = AUTO  # of the replays


def _verify(folder: Path, question: Question, is_quiet: bool) -> VerifyReport:
    from milon.node.light import verify_block

    def say(line: str) -> None:
        if not is_quiet:
            print_lines([f"  {line}"])

    return verify_block(
        folder,
        question.bootstrap,
        question.genesis_hash,
        question.block,
        segments=question.segments,
        threads=question.threads,
        device=question.device,
        say=say,
        patience_s=question.patience_s,
    )


def _print_report(report: VerifyReport, as_json: bool) -> None:
    from milon.api.shapes import to_json

    if as_json:
        print_json(to_json(report))
        return
    print_lines(
        [
            f"{report.verdict}{': ' + report.detail if report.detail else ''}",
            f"block {report.height}  {report.hash.hex()}",
        ]
    )
    if report.claim:
        print_lines([f"claim {report.claim} of trainer {report.trainer}, segment {report.segment}"])
    print_lines(
        [f"closes {report.rounds} rounds, replayed {report.segments_replayed} of {report.segments_total} segments"]
    )
    print_lines(f"proved: {line}" for line in report.proved)
    print_lines(f"not proved: {line}" for line in report.not_proved)
