"""Looks a node over, running or not; of each thing that is not well it says cause, consequence and next step.

Nothing is changed: files are only read, ports only tried.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.base.units import Epoch, Height, View
from milon.chain.block import Block, compute_header_hash
from milon.chain.certificate import Vote
from milon.consensus.messages import LoggedVote
from milon.node.config import Config, load_config
from milon.node.findings import FAIL, OK, WARN, Finding, refused, well
from milon.node.folder import NodeFolder
from milon.node.keys import load_key
from milon.node.moving import require_here, require_votes
from milon.node.vote_log import read_log, read_signed
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.lmdb_folder import count_free_bytes
from milon.state.lmdb_store import LmdbVisit

FILES_FAIL, FILES_WARN = 256, 1_024  # open files: a peer takes three, the database and the worker some ten
ROOM_FACTOR = 4  # times the room that must stay free: a day or so before the node stops
BLOCKS_CHECKED = 200  # the newest ones; `milon replay` looks at all


def is_running(folder: NodeFolder) -> bool:
    """Whether a process holds the folder's lock."""
    if not folder.lock.exists():
        return False
    with folder.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def check_folder(folder: NodeFolder) -> Finding:
    """Settings, keys, and whether the validator is here."""
    try:
        config = load_config(folder)
        require_here(folder)
        require_votes(folder)
        key = load_key(folder.validator_key)
        load_key(folder.network_key)
    except Rejected as error:
        return refused("folder", error, "the node does not start")
    return well("folder", f"{config.role} {key.account.hex()[:8]}, settings and keys are sound")


def check_disk(folder: NodeFolder, config: Config) -> Finding:
    """Room on the disk of the chain."""
    free, least = count_free_bytes(folder.root), config.disk_free_bytes_min
    cause = f"{free >> 20} MiB are free, {least >> 20} MiB must stay free"
    if free < least:
        return Finding("disk", FAIL, cause, "the node stops before the next block", "free space, or lower the setting")
    if free < ROOM_FACTOR * least:
        return Finding("disk", WARN, cause, "the node stops when it is used up", "free space, or --mode light")
    return well("disk", cause)


def check_files(limits: tuple[int, int]) -> Finding:
    """How many files a process may have open: `limits` are the soft and the hard one."""
    soft, hard = limits
    is_endless = soft == resource.RLIM_INFINITY
    cause = "no limit on open files" if is_endless else f"{soft} files may be open, at most {hard}"
    if is_endless or soft >= FILES_WARN:
        return well("files", cause)
    level = FAIL if soft < FILES_FAIL else WARN
    return Finding("files", level, cause, "connections to peers are refused under load", f"ulimit -n {FILES_WARN}")


def _try_port(host: str, port: int) -> str:
    """Empty where the port is free, else why not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError as error:
            return os.strerror(error.errno or 0)
    return ""


def _can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def check_ports(config: Config, runs: bool) -> Finding:
    """Whether the ports of the settings are free for a node that does not run, or answer of one that does."""
    ports = [("listen_port", config.listen_host, config.listen_port), ("api_port", "127.0.0.1", config.api_port)]
    fixed = [(name, host, port) for name, host, port in ports if port]
    if not fixed:
        return well("ports", "free ports are chosen at every start")
    for name, host, port in fixed:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        if runs and not _can_connect(near, port):
            cause = f"the node runs and nothing answers at {name} {port}"
            return Finding("ports", FAIL, cause, "others cannot reach it", "see its log; restart it")
        problem = "" if runs else _try_port(host, port)
        if problem:
            cause = f"{name} {port} on {host}: {problem}"
            return Finding("ports", FAIL, cause, "the node does not start", f"free the port, or change {name}")
    return well("ports", ", ".join(f"{name} {port} {'answers' if runs else 'is free'}" for name, _, port in fixed))


def read_votes(folder: NodeFolder) -> tuple[tuple[Epoch, View], tuple[Vote, ...], int]:
    """The highest place signed in, the logged votes, and the bytes of a torn tail; `Rejected` where damaged."""
    log, signed = folder.votes / "votes.log", folder.votes / "votes.signed"
    raw = log.read_bytes() if log.exists() else b""
    records, end = read_log(raw, str(log))
    votes = tuple(record.vote for record in records if isinstance(record, LoggedVote))
    highest = read_signed(signed.read_bytes() if signed.exists() else b"", str(signed))
    places = [(vote.content.epoch, vote.content.view) for vote in votes]
    return max([highest, *places]), votes, len(raw) - end


def check_votes(folder: NodeFolder) -> Finding:
    """The vote log and the record of how far was signed."""
    try:
        (epoch, view), votes, torn = read_votes(folder)
    except Rejected as error:
        return refused("votes", error, "the node does not start, so that it cannot sign twice")
    tail = f"; {torn} bytes of a torn tail are dropped at the next start" if torn else ""
    return well("votes", f"{len(votes)} votes logged, signed up to epoch {epoch}, view {view}{tail}")


def _find_damage(visit: LmdbVisit) -> str:
    """What is wrong with a store; empty where nothing is."""
    tip = visit.tip()
    if tip is None:
        return "it holds no tip"
    changes: dict[bytes, bytes | None] = dict(visit.scan(b""))
    root, nodes = compute_update(lambda _: None, EMPTY_ROOT, changes)
    if root != visit.state_root():
        return f"the ledger has root {root.hex()}, the store says {visit.state_root().hex()}"
    count = 0
    for position, record in visit.scan_nodes():
        count += 1
        if nodes.get(position) != record:
            return f"the tree's node at {position.hex()[:40]} is not the one the ledger has"
    if count != len(nodes):
        return f"the tree has {count} nodes where the ledger has {len(nodes)}"
    named, height = tip[1], tip[0]
    while height > max(0, tip[0] - BLOCKS_CHECKED):
        raw = visit.block_by_height(height)
        if raw is None:
            return "" if height < tip[0] else f"the block at the tip, {height}, is missing"
        header = decode(Block, raw).header
        if compute_header_hash(header) != named:
            return f"block {height} is not the one that its child, or the tip, names"
        if height == tip[0] and header.state_root != root:
            return f"the tip's block says state root {header.state_root.hex()}, the ledger has {root.hex()}"
        named, height = header.parent_hash, Height(height - 1)
    return ""


def check_store(folder: NodeFolder) -> Finding:
    """The chain's store: ledger, tree, root and the newest blocks must belong together."""
    if not (folder.chain / "data.mdb").exists():
        return well("store", "no chain yet; it is made at the first start")
    try:
        visit = LmdbVisit(folder.chain)
    except Rejected as error:
        return refused("store", error, "the node cannot use the chain it has")
    try:
        damage, tip = _find_damage(visit), visit.tip()
    except Rejected as error:
        damage, tip = f"a record cannot be read: {error}", None
    finally:
        visit.close()
    if damage:
        return Finding(
            "store", FAIL, damage, "the node would end at the first block that touches it",
            f"`milon replay --verify --data {folder.root}` tells more; then move {folder.chain} away to fetch it anew",
        )  # fmt: skip
    return well("store", f"height {tip[0] if tip else 0}: ledger, tree, root and newest blocks belong together")


def examine(root: Path, limits: tuple[int, int] | None = None) -> Sequence[Finding]:
    """Everything that can be seen on this machine; `limits` replaces the process's own limits on open files."""
    folder = NodeFolder(root)
    findings = [check_folder(folder)]
    config = load_config(folder) if findings[0].level == OK else None
    config = config if config is not None else _settings_of(folder)
    runs = is_running(folder)
    findings.append(well("node", "it runs" if runs else "it does not run"))
    if root.is_dir():
        checks: tuple[Callable[[], Finding], ...] = (
            lambda: check_disk(folder, config),
            lambda: check_files(limits or resource.getrlimit(resource.RLIMIT_NOFILE)),
            lambda: check_ports(config, runs),
            lambda: check_votes(folder),
            lambda: check_store(folder),
        )
        findings += [check() for check in checks]
    return findings


def _settings_of(folder: NodeFolder) -> Config:
    try:
        return load_config(folder)
    except Rejected:
        return Config()
