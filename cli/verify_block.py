"""`milon verify-block`: check a block from nothing, as deep as is asked for."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milon.client.devices import AUTO, verify_device

from .block import parse_block_name
from .exits import Exit
from .options import BootstrapOption, DeviceOption, JsonOption
from .output import print_error, print_json, print_lines

if TYPE_CHECKING:
    from milon.base.ids import Digest
    from milon.base.units import Height
    from milon.node.verify_levels import VerifyReport

BAR_CHARS = 24


class Depth(StrEnum):
    """As `milon.node.verify_levels.Level`, which would load the node before the words are checked."""

    CERTIFICATES = "certificates"
    SAMPLE = "sample"
    SEGMENTS = "segments"
    FULL = "full"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify-block", epilog="Example: milon verify-block 42 --bootstrap ADDRESS --genesis-hash HASH")(verify)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be verified, and from what."""

    bootstrap: tuple[str, ...]  # addresses of running nodes; empty: `node` is read
    genesis_hash: Digest | None  # of the chain; None: that of the folder is trusted
    node: Path | None  # a node's folder
    block: Height | Digest  # which
    level: Depth = Depth.FULL  # how deep
    segments: int | None = None  # to replay at most; None: all
    threads: int = 1  # of the replays
    patience_s: float = 60.0  # to look for each state
    device: str = AUTO  # of the replays


def verify(
    name: Annotated[str, typer.Argument(help="Height or hash of the block.")],
    bootstrap: BootstrapOption = None,
    genesis_hash: Annotated[str, typer.Option(help="The chain's genesis hash: all that has to be trusted.")] = "",
    node: Annotated[
        Path | None, typer.Option("--node", help="Read this node's folder instead of asking peers; it may run.")
    ] = None,
    level: Annotated[
        Depth,
        typer.Option(help="Each holds the ones before: certificates, a sample of segments, all, and the aggregate."),
    ] = Depth.FULL,
    segments: Annotated[int | None, typer.Option(min=0, help="Segments to replay at most; drawn by chance.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the replays; results do not depend on it.")] = 1,
    patience_s: Annotated[int, typer.Option("--patience", min=1, help="Seconds to look for each state.")] = 60,
    device: DeviceOption = AUTO,
    data: Annotated[
        Path | None, typer.Option(help="An empty folder to work in; one that vanishes if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a block: certificates up to it, its rounds' claims by replay, the aggregate and its evaluation.

    Exit codes: 0 valid as far as was asked; 1 invalid, naming claim, segment, step and operation as far as they can be
    known; 2 undecided or not to be checked, and why.
    """
    from milon.base.errors import Reason, require
    from milon.node.config import parse_digest, verify_multiaddress

    block = parse_block_name(name)
    is_sourced = bool(bootstrap) != (node is not None)
    detail = "from whom? give --bootstrap with the address of a running node, or --node with a node's folder, not both"
    require(is_sourced, Reason.UNAVAILABLE, detail)
    for address in bootstrap or ():
        verify_multiaddress(address)
    trusted = parse_digest("--genesis-hash", genesis_hash) if bootstrap or genesis_hash else None
    verify_device(device)
    question = Question(
        tuple(bootstrap or ()), trusted, node, block, level, segments, threads, float(patience_s), device
    )
    with contextlib.ExitStack() as stack:
        if data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="milon-verify-")))
        else:
            folder = data
            is_empty = not data.exists() or not any(data.iterdir())
            require(is_empty, Reason.DUPLICATE, f"{data} is not empty; name another folder")
            data.mkdir(parents=True, exist_ok=True)
        report = _verify(folder, question, as_json)
    _print_report(report, as_json)
    raise typer.Exit({"valid": Exit.OK, "invalid": Exit.NO}.get(report.verdict, Exit.CANNOT))


class _Bar:
    """How many segments are done, on standard error, where somebody watches it."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_shown = not is_quiet and sys.stderr.isatty()

    def show(self, done: int, total: int) -> None:
        """Draw it."""
        if self._is_shown:
            filled = BAR_CHARS * done // max(1, total)
            line = f"\r  [{'#' * filled}{'.' * (BAR_CHARS - filled)}] {done}/{total} segments"
            print(line, end="\n" if done == total else "", file=sys.stderr, flush=True)


def _verify(folder: Path, question: Question, is_quiet: bool) -> VerifyReport:
    from milon.node.verify_block import Inquiry, verify_from_folder, verify_from_peers
    from milon.node.verify_levels import Level

    def say(line: str) -> None:
        if not is_quiet:
            print_lines([f"  {line}"])

    inquiry = Inquiry(
        question.block,
        Level(question.level.value),
        question.segments,
        question.threads,
        question.device,
        question.patience_s,
        say,
        _Bar(is_quiet).show,
    )
    if question.node is not None:
        return verify_from_folder(inquiry, folder, question.node, question.genesis_hash)
    if question.genesis_hash is None:
        raise RuntimeError("peers are asked without a genesis hash")
    return verify_from_peers(inquiry, folder, question.bootstrap, question.genesis_hash)


def _print_report(report: VerifyReport, as_json: bool) -> None:
    from milon.api.shapes import to_json

    if as_json:
        shaped = to_json(report)
        if report.verdict == "undecided":
            shaped["error"] = {"reason": report.reason, "detail": report.detail}
        print_json(shaped)
        return
    print_lines(
        [
            f"{report.verdict}{': ' + report.detail if report.detail else ''}",
            f"block {report.height}  {report.hash.hex()}",
            f"level {report.level}: closes {report.rounds} rounds, replayed {report.segments_replayed} of "
            f"{report.segments_total} segments",
        ]
    )
    if report.claim:
        step = "not known" if report.step is None else str(report.step)
        print_lines([f"claim {report.claim} of trainer {report.trainer}, segment {report.segment}, step {step}"])
    if report.operation:
        print_lines([f"shows in {report.tensor}, which operation {report.operation} gives"])
    if report.finding:
        print_lines([f"found: {report.finding}"])
    print_lines(f"proved: {line}" for line in report.proved)
    print_lines(f"not proved: {line}" for line in report.not_proved)
    if report.verdict == "undecided":
        print_error(report.reason, f"{report.detail}; {report.consequence}; next: {report.next_step}", False)
