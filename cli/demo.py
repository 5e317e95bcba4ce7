"""`milon demo`: the whole way, from five processes and a PyTorch file to a model that anyone can check."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from milon.client.devices import CPU, verify_device

from .demo_report import Outcome, build_report, list_failures, summarize
from .demo_run import DemoChoices, run_demo
from .demo_screen import Naming, open_screen
from .exits import Exit
from .network import make_local, read_adversaries
from .options import DeviceOption
from .output import print_lines
from .parameters import make_parameters
from .processes import stop_nodes
from .testnet import BlockTimeOption, BusyBlockTimeOption, DeltaOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: milon demo --json result.json")(demo)


def find_example() -> Path:
    """The digits example of the checkout that `milon` is installed from."""
    import milon
    from milon.base.errors import Reason, require

    path = Path(milon.__file__).parent.parent / "examples" / "digits" / "job.py"
    require(path.exists(), Reason.UNAVAILABLE, "the examples are not here; name a job file with --job")
    return path


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file as JSON.")] = None,
    root: Annotated[Path | None, typer.Option("--dir", help="Folder of the network, kept afterwards.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder.")] = False,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many nodes.")] = 5,
    job: Annotated[Path | None, typer.Option(help="Job file; the digits example where left out.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds, instead of the job's own.")] = None,
    aggregator: Annotated[
        str, typer.Option(help="Such as arc,nnm,median; see `milon aggregators`.")
    ] = "arc,nnm,trimmed-mean",
    audit: Annotated[str, typer.Option(help="Share of segments replayed, per round.")] = "0,0,1,0.25",
    term: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of another term of the job; repeat.")] = None,
    adversary: Annotated[
        list[str] | None, typer.Option(help='INDEX=KIND, or "none"; the last node flips signs where left out.')
    ] = None,
    verify_segments: Annotated[int, typer.Option(min=0, help="Segments that verify-block replays.")] = 10,
    expect: Annotated[str, typer.Option(help="good, collapse or nothing: what counts as success.")] = "good",
    accuracy_min: Annotated[float, typer.Option(min=0, max=1, help="Least accuracy of a good run.")] = 0.95,
    timeout_s: Annotated[int, typer.Option("--timeout", min=1, help="Seconds until the job counts as failed.")] = 600,
    block_time_ms: BlockTimeOption = 1_000,
    busy_block_time_ms: BusyBlockTimeOption = 200,
    delta_ms: DeltaOption = 1_000,
    threads: ThreadsOption = 1,
    device: DeviceOption = CPU,
    screen: Annotated[bool, typer.Option(help="Draw a live screen; plain lines otherwise.")] = True,
) -> None:
    """Raise five nodes, one of them hostile, train the digits, verify the result from nothing, and end everything.

    Exit codes: 0 all went as expected; 1 something did not, and which; 2 it could not be run; 130 Ctrl-C.
    """
    if expect not in ("good", "collapse", "nothing"):
        raise typer.BadParameter("good, collapse or nothing", param_hint="--expect")
    verify_device(device)
    texts = [f"{nodes - 1}=sign-flip"] if adversary is None else [text for text in adversary if text != "none"]
    adversaries = read_adversaries(texts)
    poisoners = tuple(sorted(adversaries))
    file = job if job is not None else find_example()
    terms = tuple(term or ())
    choices = DemoChoices(file, rounds, aggregator, audit, terms, verify_segments, float(timeout_s), poisoners)
    parameters = make_parameters(block_time_ms, busy_block_time_ms, delta_ms)
    began = time.monotonic()
    with working_folder(root, keep) as folder:
        testnet = make_local(folder / "net", nodes, adversaries, parameters, threads, device)
        name_of = naming(testnet.accounts)
        with contextlib.ExitStack() as ending:
            ending.callback(stop_nodes, testnet.nodes)
            shown = ending.enter_context(open_screen(screen and sys.stdout.isatty(), name_of, began))
            outcome = run_demo(testnet, choices, shown, began)
        if finish(outcome, expect, accuracy_min, json_file, name_of):
            raise typer.Exit(Exit.NO)


def naming(accounts: tuple[str, ...]) -> Naming:
    """Nodes by number for their accounts; anybody else by the first digits."""
    names = {account: f"node {index}" for index, account in enumerate(accounts)}

    def name_of(account: str) -> str:
        return names.get(account, account[:8])

    return name_of


def finish(outcome: Outcome, expect: str, accuracy_min: float, json_file: Path | None, name_of: Naming) -> list[str]:
    """Print the summary, write the JSON, and name what fell short."""
    report = build_report(outcome)
    if json_file is not None:
        from milon.node.folder import write_file

        write_file(json_file, json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
    print_lines(summarize(report, outcome.job, name_of))
    failures = list_failures(outcome, expect, accuracy_min)
    for failure in failures:
        print(f"milon: FAILED: {failure}", file=sys.stderr, flush=True)
    return failures


@contextlib.contextmanager
def working_folder(root: Path | None, keep: bool) -> Iterator[Path]:
    """The folder of the run. A temporary one is deleted after success; after a failure it stays, and is named.

    SIGTERM ends the run as Ctrl-C does: with all its processes.
    """
    folder = root if root is not None else Path(tempfile.mkdtemp(prefix="milon-demo-"))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    is_good = False
    try:
        yield folder
        is_good = True
    finally:
        signal.signal(signal.SIGTERM, before)
        if is_good and root is None and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"the network's folder is {folder}; logs: {folder}/net/node*/node.log", file=sys.stderr, flush=True)
