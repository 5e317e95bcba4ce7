"""`milon testnet`: a network of nodes on this machine, or the files for one on several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from milon.client.devices import AUTO, CPU, verify_device, verify_name
from milon.client.waiting import wait_for

from .exits import Exit
from .network import make_local, raise_network, read_adversaries, read_status
from .options import DEFAULT_TESTNET, DeviceOption, JsonOption, TestnetOption
from .output import print_json, print_lines, print_table
from .parameters import SetOption, make_parameters
from .processes import find_process, read_last_lines, stop_nodes

_noun = typer.Typer(help="Test networks.", no_args_is_help=True)

BlockTimeOption = Annotated[int, typer.Option(min=1, help="Pause before an empty block, ms.")]
BusyBlockTimeOption = Annotated[int, typer.Option(min=1, help="Pause before a block with transactions, ms.")]
DeltaOption = Annotated[int, typer.Option(min=1, help="Assumed delay of a message, ms.")]
AdversaryOption = Annotated[
    list[str] | None,
    typer.Option(
        help="INDEX=KIND: sign-flip, scaled, noise, nan, infinity, huge, zero, label-flip, duplicate, copy, mimic, "
        "alie, alie-optimised, ipm, ipm-optimised, min-max, min-sum, bit-flip, lazy or accept; repeat."
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of each node's worker.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="testnet")


@_noun.command(epilog="Example: milon testnet up --nodes 5 --adversary 4=sign-flip")
def up(
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many, for a new network.")] = 5,
    root: TestnetOption = DEFAULT_TESTNET,
    adversary: AdversaryOption = None,
    block_time_ms: BlockTimeOption = 1_000,
    busy_block_time_ms: BusyBlockTimeOption = 200,
    delta_ms: DeltaOption = 1_000,
    settings: SetOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = CPU,
    as_json: JsonOption = False,
) -> None:
    """Start a test network on this machine: a new one where the folder is new, else the same chain again."""
    from milon.node.testnet_files import Testnet, load_testnet

    def say(line: str) -> None:
        if not as_json:
            print_lines([line])

    verify_device(device)
    if Testnet(root).genesis.exists():
        testnet = load_testnet(root)
    else:
        parameters = make_parameters(block_time_ms, busy_block_time_ms, delta_ms, settings or ())
        testnet = make_local(root, nodes, read_adversaries(adversary or []), parameters, threads, device)
        say(f"made a new chain in {root}")
    raise_network(testnet, say)
    found = describe_testnet(root)
    if as_json:
        print_json(found)
        return
    print_lines(
        [
            f"{len(found['nodes'])} nodes are up; genesis {found['genesis_hash']}",
            f"submit a job:  milon submit-job FILE.py --node {root}/node0 --key {testnet.submitter_key} --watch",
            f"end it:        milon testnet down --dir {root}",
        ]
    )


def describe_testnet(root: Path) -> dict[str, Any]:
    """A test network and its nodes, running or not, for programs."""
    from milon.chain.genesis import compute_genesis_hash
    from milon.node.keys import read_account
    from milon.node.testnet_files import load_genesis, load_testnet

    testnet = load_testnet(root)
    rows: list[dict[str, Any]] = []
    for index, folder in enumerate(testnet.nodes):
        process, status = find_process(folder), read_status(folder)
        rows.append(
            {
                "node": index,
                "folder": str(folder.root),
                "account": read_account(folder.validator_key).hex(),
                "pid": process.pid if process else None,
                "is_running": process is not None,
                "height": status["height"] if status else None,
                "tip_hash": status["tip_hash"] if status else None,
                "peers": len(status["peers"]) if status else None,
                "addresses": status["addresses"] if status else [],
            }
        )
    genesis = load_genesis(testnet.genesis)
    return {
        "chain_id": genesis.chain_id,
        "genesis_hash": compute_genesis_hash(genesis).hex(),
        "submitter_key": str(testnet.submitter_key),
        "nodes": rows,
    }


@_noun.command(epilog="Example: milon testnet down --dir ./milon-testnet")
def down(root: TestnetOption = DEFAULT_TESTNET, as_json: JsonOption = False) -> None:
    """End all nodes of a test network; the chain stays in its folder."""
    from milon.node.testnet_files import load_testnet

    nodes = load_testnet(root).nodes
    running = sum(1 for folder in nodes if find_process(folder) is not None)
    killed = stop_nodes(nodes)
    if as_json:
        print_json({"ended": running, "killed": list(killed)})
    else:
        print_lines([f"ended {running} nodes" + (f"; had to kill {', '.join(map(str, killed))}" if killed else "")])


@_noun.command(epilog="Example: milon testnet status --json")
def status(root: TestnetOption = DEFAULT_TESTNET, as_json: JsonOption = False) -> None:
    """Show the nodes of a test network; exit code 1 unless all run and answer."""
    found = describe_testnet(root)
    if as_json:
        print_json(found)
    else:
        print_lines([f"chain {found['chain_id']}  genesis {found['genesis_hash']}"])
        print_table(
            ("node", "account", "pid", "height", "tip", "peers"),
            [
                (
                    row["node"],
                    row["account"][:16],
                    row["pid"] or "-",
                    "-" if row["height"] is None else row["height"],
                    (row["tip_hash"] or "-")[:16],
                    "-" if row["peers"] is None else row["peers"],
                )
                for row in found["nodes"]
            ],
        )
    if any(row["height"] is None for row in found["nodes"]):
        raise typer.Exit(Exit.NO)


@_noun.command(epilog="Example: milon testnet logs 0 --lines 50")
def logs(
    node: Annotated[int, typer.Argument(min=0, help="Which node.")] = 0,
    root: TestnetOption = DEFAULT_TESTNET,
    lines: Annotated[int, typer.Option(min=1, help="How many lines from the end.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the end of a node's log."""
    from milon.node.testnet_files import load_testnet

    nodes = load_testnet(root).nodes
    if node >= len(nodes):
        raise typer.BadParameter(f"there is no node {node}; they are 0 to {len(nodes) - 1}")
    folder = nodes[node]
    text = read_last_lines(folder, lines)
    if as_json:
        print_json({"node": node, "log": str(folder.log), "lines": text.splitlines()})
        return
    print_lines([text])
    if follow:
        with folder.log.open("r", errors="replace") as file:
            file.seek(0, 2)
            wait_for(lambda: print(file.read(), end="", flush=True))


@_noun.command(epilog="Example: milon testnet files --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host 10.0.0.4")
def files(
    host: Annotated[list[str], typer.Option(help="IP address of a node's host; one a node.")],
    root: TestnetOption = DEFAULT_TESTNET,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="TCP port of every node.")] = 4_001,
    chain_id: Annotated[str, typer.Option(help="Name of the chain.")] = "testnet",
    adversary: AdversaryOption = None,
    block_time_ms: BlockTimeOption = 1_000,
    busy_block_time_ms: BusyBlockTimeOption = 200,
    delta_ms: DeltaOption = 1_000,
    settings: SetOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = AUTO,
    as_json: JsonOption = False,
) -> None:
    """Write genesis, keys, settings and start-up scripts for nodes on separate hosts; starts nothing.

    Copy each nodeN folder to its host and run its start.sh there. A host named twice gets ports in a row.
    """
    from milon.base.units import TimeMs
    from milon.node.testnet_files import Place, TestnetPlan, make_testnet

    verify_name(device)  # whether it is there, each host finds out
    places = tuple(Place(name, port + host[:index].count(name), 0) for index, name in enumerate(host))
    plan = TestnetPlan(
        chain_id,
        TimeMs(time.time_ns() // 1_000_000),
        places,
        make_parameters(block_time_ms, busy_block_time_ms, delta_ms, settings or ()),
        read_adversaries(adversary or []),
        threads=threads,
        device=device,
    )
    testnet = make_testnet(root, plan)
    if as_json:
        print_json({"folder": str(root), "nodes": [str(folder.root) for folder in testnet.nodes]})
        return
    print_lines(f"{folder.root}  ->  {place.host}" for folder, place in zip(testnet.nodes, places, strict=True))
    print_lines(["copy each folder to its host and run start.sh there; keep keys/submitter.key to yourself"])
