"""A node's settings: one frozen value, read from and written to `config.toml`."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.node.folder import NodeFolder, read_file, write_file

_CONFIG_MAX_BYTES = 64 << 10  # some hundred bootstrap addresses
_ADDRESS_MAX = 256  # characters; a multiaddress with a peer id has about 90
_BOOTSTRAP_MAX = 64  # a newcomer needs one that answers
_DEVICE = re.compile(r"[a-z]{1,16}(:[0-9]{1,3})?")  # which names there are, only the worker's library knows

_UNITS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_BYTES = re.compile(rf"(?P<number>[0-9]{{1,15}}) ?(?P<unit>{'|'.join(_UNITS)})?")

# How a node of a test network may misbehave in learning; it goes on voting. `milon.pol.work` hands it to the worker.
ADVERSARIES = (
    "sign-flip", "scaled", "noise", "nan", "infinity", "huge", "zero", "label-flip", "duplicate", "copy", "mimic",
    "alie", "alie-optimised", "ipm", "ipm-optimised", "min-max", "min-sum", "bit-flip", "lazy", "accept",
)  # fmt: skip


class Role(StrEnum):
    """What a node does."""

    VALIDATOR = "validator"  # votes where it has stake, and trains
    TRAINER = "trainer"  # trains, and follows the chain
    FULL = "full"  # follows the chain and serves blobs


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a person may decide about a node."""

    role: str = "validator"  # a `Role`
    genesis_hash: str = ""  # 64 hexadecimal digits; needed where genesis.cbor has to come from peers
    listen_host: str = "127.0.0.1"  # IP address for other nodes
    listen_port: int = 0  # TCP; 0: a free one
    announce_host: str = ""  # IP address others reach this node at, where it is not the one it listens on
    bootstrap: tuple[str, ...] = ()  # multiaddresses with peer ids; the first nodes to dial
    api_port: int = 0  # of the HTTP API on 127.0.0.1; 0: a free one
    device: str = "auto"  # "auto", "cpu", or a kind of accelerator and perhaps its number: where training runs
    threads: int = 1  # of the worker's arithmetic; results do not depend on it
    watch_ppm: int = 0  # share of others' segments that a bonded node replays unasked, in millionths; see `watch`
    adversary: str = ""  # one of `ADVERSARIES`; empty: it does not misbehave
    mode: str = "default"  # "archive", "default" or "light": how many blocks of the past are kept; see `keeping`
    snapshot_blocks: int = 1_000  # between two snapshots of the ledger for newcomers; 0: none
    trusted_hash: str = ""  # 64 hexadecimal digits of a header; an empty node begins with a snapshot near it
    log_level: str = "info"  # "debug", "info", "warning" or "error"
    blob_bytes_max: int = 4 << 30  # one blob; as the chain's default limit for a job's data
    blob_store_bytes_max: int = 64 << 30  # all blobs; beyond it nothing new is taken
    checkpoint_bytes_max: int = 8 << 30  # states of own segments while their rounds are open; see `checkpoints`
    disk_free_bytes_min: int = 256 << 20  # the node stops before less is free: some hundred blocks of the largest size


def _verify_host(name: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise Rejected(Reason.MALFORMED, f"{name} = {text!r} is not an IP address") from None


def parse_digest(name: str, text: str) -> Digest:
    """A digest from 64 hexadecimal digits; `Rejected(MALFORMED)`, naming `name`, for anything else."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    require(len(raw) == 32, Reason.MALFORMED, f"{name}: {text[:80]!r} is not 64 hexadecimal digits")
    return Digest(raw)


def parse_bytes(name: str, text: str) -> int:
    """A number of bytes: digits, and perhaps a unit; `Rejected(MALFORMED)`, naming `name`, for anything else."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise Rejected(Reason.MALFORMED, f"{name}: {text[:80]!r} is no size; one looks like 8GiB, 500MB or 1048576")
    return int(match["number"]) * _UNITS[match["unit"] or "B"]


def verify_config(config: Config) -> None:
    """Raise `Rejected` unless every setting means something; whether a port is free shows when it is opened."""
    choices = (
        ("role", config.role, tuple(Role)),
        ("mode", config.mode, ("archive", "default", "light")),
        ("log_level", config.log_level, ("debug", "info", "warning", "error")),
        ("adversary", config.adversary, ("", *ADVERSARIES)),
    )
    for name, value, allowed in choices:
        require(
            value in allowed, Reason.OUT_OF_RANGE, f"{name} = {value!r}; it may be {', '.join(filter(None, allowed))}"
        )
    is_name = _DEVICE.fullmatch(config.device) is not None
    names = "auto, cpu, or an accelerator and its number, name:0"
    require(is_name, Reason.OUT_OF_RANGE, f"device = {config.device!r:.80}; it may be {names}")
    ranges = (
        ("listen_port", config.listen_port, 0, 65_535),
        ("api_port", config.api_port, 0, 65_535),
        ("threads", config.threads, 1, 1_024),
        ("watch_ppm", config.watch_ppm, 0, 1_000_000),
        ("snapshot_blocks", config.snapshot_blocks, 0, 1 << 30),
        ("blob_bytes_max", config.blob_bytes_max, 1 << 20, 1 << 40),
        ("blob_store_bytes_max", config.blob_store_bytes_max, config.blob_bytes_max, 1 << 50),
        ("checkpoint_bytes_max", config.checkpoint_bytes_max, 0, 1 << 50),
        ("disk_free_bytes_min", config.disk_free_bytes_min, 0, 1 << 50),
    )
    for name, number, low, high in ranges:
        require(low <= number <= high, Reason.OUT_OF_RANGE, f"{name} = {number}; it may be {low} to {high}")
    _verify_host("listen_host", config.listen_host)
    if config.announce_host:
        _verify_host("announce_host", config.announce_host)
    if config.genesis_hash:
        parse_digest("genesis_hash", config.genesis_hash)
    if config.trusted_hash:
        parse_digest("trusted_hash", config.trusted_hash)
    require(
        len(config.bootstrap) <= _BOOTSTRAP_MAX, Reason.TOO_LARGE, f"more than {_BOOTSTRAP_MAX} bootstrap addresses"
    )
    for address in config.bootstrap:
        verify_multiaddress(address)


def verify_multiaddress(address: str) -> None:
    """Raise `Rejected(MALFORMED)` unless the address reads `/ip4|ip6|dns…/HOST/tcp/PORT/p2p/PEER`."""
    parts = address.split("/")
    is_sound = (
        len(address) <= _ADDRESS_MAX
        and len(parts) == 7
        and parts[0] == ""
        and parts[1] in ("ip4", "ip6", "dns", "dns4", "dns6")
        and (parts[3], parts[5]) == ("tcp", "p2p")
        and parts[4].isascii()
        and parts[4].isdigit()
        and 1 <= int(parts[4]) <= 65_535
        and bool(parts[2])
        and bool(parts[6])
    )
    example = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..."
    require(is_sound, Reason.MALFORMED, f"{address[:80]!r} is not a bootstrap address; one looks like {example}")


def parse_config(text: str, where: str = "config.toml") -> Config:
    """The settings in TOML text; `Rejected` for bad TOML, unknown keys (naming the nearest), wrong types and values."""
    try:
        table: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Rejected(Reason.MALFORMED, f"{where} is not TOML: {error}") from None
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(defaults)}"
            raise Rejected(Reason.UNKNOWN, f"{where}: no setting is called {name!r}{hint}")
        found[name] = _convert(where, name, value, defaults[name])
    config = Config(**found)
    verify_config(config)
    return config


def _convert(where: str, name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        is_list = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        require(is_list, Reason.WRONG_TYPE, f"{where}: {name} must be a list of strings")
        return tuple(value)
    kind = type(default)
    require(type(value) is kind, Reason.WRONG_TYPE, f"{where}: {name} must be {_KIND_NAMES[kind]}, not {value!r:.80}")
    return value


_KIND_NAMES = {int: "a whole number", str: "a string"}


def format_config(config: Config) -> str:
    """The settings as TOML that `parse_config` reads back to the same value."""
    lines = ["# Settings of a Milon node; docs/spec/node.md explains each. Restart the node after a change."]
    lines += [f"{field.name} = {_quote(getattr(config, field.name))}" for field in dataclasses.fields(config)]
    return "\n".join(lines) + "\n"


def _quote(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_quote(entry) for entry in value) + "]"
    if isinstance(value, int):
        return str(value)
    escaped = "".join(
        f"\\{character}" if character in '"\\' else character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in value
    )
    return f'"{escaped}"'


def load_config(folder: NodeFolder) -> Config:
    """The settings of a node's folder."""
    if not folder.config.exists():
        raise Rejected(
            Reason.UNAVAILABLE, f"{folder.root} is not a node's folder (no config.toml); make one with `milon init`"
        )
    text = read_file(folder.config, _CONFIG_MAX_BYTES).decode("utf-8", "replace")
    return parse_config(text, str(folder.config))


def save_config(folder: NodeFolder, config: Config) -> None:
    """Write the settings; the file is replaced whole."""
    verify_config(config)
    write_file(folder.config, format_config(config).encode())
