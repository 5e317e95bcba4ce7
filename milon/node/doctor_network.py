"""The part of the doctor that asks the network: peers, the clock beside theirs, and who else uses this node's keys."""

from __future__ import annotations

from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.base.units import Epoch, Height, View
from milon.node.clocks import Reading, judge_clock, read_clocks
from milon.node.config import load_config, parse_digest
from milon.node.doctor import is_running, read_votes
from milon.node.findings import FAIL, WARN, Finding, refused, well
from milon.node.folder import NodeFolder
from milon.node.keys import compute_peer_id_of, load_key
from milon.node.light import Visit, visiting
from milon.node.questions import AskHeader, HeaderAnswer
from milon.p2p.transport import Channel, PeerId, Transport
from milon.state.lmdb_store import LmdbVisit

ASK_S = 5.0  # one question
BEHIND_BLOCKS = 50  # a node further behind than this is catching up or cut off


def judge_height(readings: tuple[Reading, ...], own: Height) -> Finding:
    """How far this node is beside its peers."""
    others = max((int(reading.height) for reading in readings), default=0)
    cause = f"height {own}, peers are at {others}"
    if others - own > BEHIND_BLOCKS:
        return Finding("height", WARN, cause, "it does not vote until it has caught up", "let it run; look again")
    return well("height", cause)


def judge_signers(answer: HeaderAnswer, account: AccountId, signed: tuple[Epoch, View], runs: bool) -> Finding:
    """Whether the newest finalization has a vote of this validator that this folder knows nothing of."""
    certificate = answer.proof.finalization
    place = (certificate.content.epoch, certificate.content.view)
    if account not in certificate.signers or place <= signed:
        return well("key use", "no vote of this validator is known that this folder has not signed")
    cause = f"epoch {place[0]}, view {place[1]} is signed by this validator, and this folder signed up to {signed}"
    return Finding(
        "key use", FAIL, cause, "another node signs with this key: both together lose the stake",
        "stop this node now and find the other one; move validators with `milon validator export`"
        if runs else "do not start this node; find the other one",
    )  # fmt: skip


async def _check_host_key(visit: Visit, folder: NodeFolder, runs: bool) -> Finding:
    """Whether somebody else announces this node's host key and answers."""
    own = compute_peer_id_of(load_key(folder.network_key))
    address = visit.address_of(PeerId(own))
    if runs or not address:
        return well("host key", "nobody else announces it" if not runs else "watched by the running node itself")
    try:
        await visit.transport.connect(address, timeout_s=ASK_S)
    except Rejected:
        return well("host key", f"last announced from {address}, where nobody answers now")
    return Finding(
        "host key", FAIL, f"a node with this host key answers at {address}", "two nodes cannot be one peer",
        "stop one of them; if it is a copy of this folder, it may sign with this validator's key too",
    )  # fmt: skip


async def examine_network(folder: NodeFolder) -> tuple[Finding, ...]:
    """What the network can tell of a folder whose settings and keys are sound; one finding where it is out of reach."""
    config = load_config(folder)
    if not config.genesis_hash:
        return (Finding("peers", WARN, "no chain is set", "it follows none", "`milon join` with --genesis-hash"),)
    if not config.bootstrap:
        return (Finding("peers", WARN, "no bootstrap address is set", "it waits for others to dial it", "set one"),)
    runs = is_running(folder)
    try:
        async with visiting(config.bootstrap, parse_digest("genesis_hash", config.genesis_hash)) as visit:
            count = len(visit.transport.peers())
            findings = [well("peers", f"{count} answer; {len(config.bootstrap)} bootstrap addresses are set")]
            readings = await read_clocks(visit.transport)
            findings.append(judge_clock(readings, int(visit.genesis.parameters.clock_drift_ms_max)))
            findings.append(judge_height(readings, _own_height(folder)))
            account = load_key(folder.validator_key).account
            newest = await _ask_newest(visit.transport)
            if newest is not None:
                signed = read_votes(folder)[0]  # after the question: a running node signs on meanwhile
                findings.append(judge_signers(newest, account, signed, runs))
            findings.append(await _check_host_key(visit, folder, runs))
            return tuple(findings)
    except Rejected as error:
        return (refused("peers", error, "the node follows no chain until one answers"),)


async def _ask_newest(transport: Transport) -> HeaderAnswer | None:
    for peer in transport.peers():
        try:
            raw = await transport.request(peer, Channel.SYNC, encode(AskHeader(Height(0))), timeout_s=ASK_S)
            return decode(HeaderAnswer, raw)
        except Rejected:
            continue
    return None


def _own_height(folder: NodeFolder) -> Height:
    try:
        visit = LmdbVisit(folder.chain)
    except Rejected:
        return Height(0)
    try:
        tip = visit.tip()
        return tip[0] if tip is not None else Height(0)
    finally:
        visit.close()
