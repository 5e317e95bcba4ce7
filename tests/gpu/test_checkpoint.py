"""The canonical state file: one encoding, readable by the safetensors library, and nothing else accepted."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.gpu.checkpoint import (
    HEADER_MAX_BYTES,
    export_model,
    from_bytes,
    map_file,
    state_digest,
    to_bytes,
    verify_same_shape,
)


def example_state() -> dict[str, torch.Tensor]:
    return {
        "optimizer.momentum.0.weight": torch.tensor([[0.5, -0.0], [float("nan"), float("-inf")]]),
        "model.0.weight": torch.tensor([[1.0, -2.5], [1e-45, 3.0]]),
        "model.1.num_batches_tracked": torch.tensor(7),
        "model.mask": torch.tensor([True, False, True]),
        "model.empty": torch.empty(0, 3),
    }


def file_of(header: str, body: bytes = b"") -> bytes:
    header += " " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header.encode() + body


def one(name: str = "model.a", dtype: str = "F32", shape: str = "1", offsets: str = "0,4") -> str:
    return f'{{"{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}}}'


def test_a_mapped_file_is_the_state_and_stays_as_it_is(tmp_path: Path) -> None:
    """The three truth values put the numbers behind them on odd places."""
    state = {**example_state(), "model.zzz": torch.tensor([1.5, 2.5])}
    path = tmp_path / "state"
    path.write_bytes(raw := to_bytes(state))
    mapped = map_file(path)
    assert to_bytes(mapped) == raw
    for tensor in mapped.values():
        if tensor.dtype == torch.float32:
            tensor.fill_(3.0)
    assert path.read_bytes() == raw


@pytest.mark.parametrize("raw", [b"", b"1234567", file_of(one("other.a"), bytes(4)), file_of(one(), bytes(5))])
def test_what_is_no_state_is_not_mapped_either(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(raw)
    with pytest.raises(Rejected):
        map_file(path)
    path.write_bytes(file_of(one("model.a", "BOOL", "1", "0,1"), b"\x02"))
    with pytest.raises(Rejected) as refusal:
        map_file(path)
    assert refusal.value.reason is Reason.NOT_CANONICAL


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return to_bytes(left) == to_bytes(right)


def test_frozen_vector() -> None:
    raw = to_bytes(example_state())
    assert len(raw) == (8 + 368) + (16 + 8 + 0 + 3 + 16)
    assert raw[8:64] == b'{"model.0.weight":{"dtype":"F32","shape":[2,2],"data_off'
    assert raw[-16:].hex() == "0000003f" + "00000080" + "0000c07f" + "000080ff"
    assert state_digest(raw).hex() == "ac70087515219195e53c3338a4f3bb316f297295723c21cdc07b96b91c004292"


def test_round_trip_and_order_of_the_dictionary() -> None:
    raw = to_bytes(example_state())
    state = from_bytes(raw)
    assert list(state) == sorted(example_state())
    assert to_bytes(state) == raw
    assert to_bytes(dict(reversed(example_state().items()))) == raw
    assert state["model.0.weight"].equal(example_state()["model.0.weight"])
    assert state["model.empty"].shape == (0, 3)
    assert from_bytes(to_bytes({})) == {}


def test_the_safetensors_library_reads_it() -> None:
    loaded = safetensors.torch.load(to_bytes(example_state()))
    assert same_bits(loaded, example_state())


def test_views_and_strides_do_not_matter() -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert to_bytes({"model.a": base.t()}) == to_bytes({"model.a": base.t().contiguous()})


def test_every_nan_is_one_nan() -> None:
    odd = torch.tensor([0x7FC00001, -1, 0x7F800001], dtype=torch.int32).view(torch.float32)
    raw = to_bytes({"model.a": odd})
    assert raw[-12:] == bytes.fromhex("0000c07f") * 3
    with pytest.raises(Rejected) as refusal:
        from_bytes(raw[:-4] + bytes.fromhex("0100c07f"))
    assert refusal.value.reason is Reason.NOT_CANONICAL


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(0, 2**31))
def test_changed_bytes_are_refused_or_another_state(patch: bytes, where: int) -> None:
    raw = to_bytes(example_state())
    start = where % len(raw)
    changed = (raw[:start] + patch + raw[start + len(patch) :])[: len(raw)]
    try:
        state = from_bytes(changed)
    except Rejected:
        return
    assert to_bytes(state) == changed


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(raw: bytes) -> None:
    for candidate in (raw, file_of(raw.hex()), struct.pack("<Q", len(raw)) + raw):
        with pytest.raises(Rejected):
            from_bytes(candidate)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.MALFORMED),
        (struct.pack("<Q", HEADER_MAX_BYTES + 1), Reason.TOO_LARGE),
        (struct.pack("<Q", 64) + b"{}", Reason.MALFORMED),
        (file_of("[" * 100_000), Reason.NOT_CANONICAL),
        (file_of('{"model.a":' + "[" * 100_000), Reason.MALFORMED),
        (file_of('{"__metadata__":{"a":"b"}}'), Reason.MALFORMED),
        (file_of(one("a")), Reason.MALFORMED),
        (file_of(one("model.\u00e9"), bytes(4)), Reason.MALFORMED),
        (file_of(one("model." + "a" * 300), bytes(4)), Reason.MALFORMED),
        (file_of(one(dtype="F64"), bytes(8)), Reason.UNSUPPORTED),
        (file_of(one(), bytes(5)), Reason.MALFORMED),
        (file_of(one(), bytes(3)), Reason.MALFORMED),
        (file_of(one(offsets="4,8"), bytes(4)), Reason.NOT_CANONICAL),
        (file_of(one(shape="01"), bytes(4)), Reason.MALFORMED),
        (file_of(one(shape="99999999999999,99999999999999"), bytes(4)), Reason.TOO_LARGE),
        (file_of(one(shape="0,99999999999999,99999999999999", offsets="0,0")), Reason.TOO_LARGE),
        (file_of(one(shape=",".join("1" * 9)), bytes(4)), Reason.TOO_LARGE),
        (file_of(" " + one(), bytes(4)), Reason.MALFORMED),
        (file_of(one() + " " * 8, bytes(4)), Reason.NOT_CANONICAL),
        (file_of(one()[:-1] + "," + one()[1:], bytes(8)), Reason.NOT_CANONICAL),
        (file_of(one(dtype="BOOL", offsets="0,1"), b"\x02"), Reason.NOT_CANONICAL),
    ],
)
def test_hostile_files(raw: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        from_bytes(raw)
    assert refusal.value.reason is reason


def test_size_is_bounded_before_anything_is_read() -> None:
    raw = to_bytes(example_state())
    with pytest.raises(Rejected) as refusal:
        from_bytes(raw, size_max_bytes=len(raw) - 1)
    assert refusal.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(1)}, Reason.MALFORMED),
        ({'model."': torch.zeros(1)}, Reason.MALFORMED),
        ({"model.a": torch.zeros(1, dtype=torch.float64)}, Reason.UNSUPPORTED),
        ({"model.a": torch.zeros([1] * 9)}, Reason.TOO_LARGE),
    ],
)
def test_states_that_have_no_file(state: dict[str, torch.Tensor], reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        to_bytes(state)
    assert refusal.value.reason is reason


def test_same_shape() -> None:
    state = example_state()
    verify_same_shape(state, example_state())
    for other in (
        {**state, "model.b": torch.zeros(1)},
        {name: tensor for name, tensor in state.items() if name != "model.mask"},
        {**state, "model.mask": torch.zeros(3)},
        {**state, "model.mask": torch.zeros(1, 3, dtype=torch.bool)},
    ):
        with pytest.raises(Rejected) as refusal:
            verify_same_shape(state, other)
        assert refusal.value.reason is Reason.DOES_NOT_FIT


def test_exported_model_loads_into_plain_torch() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state["optimizer.momentum.0.weight"] = torch.zeros(2, 3)
    twin = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    twin.load_state_dict(export_model(from_bytes(to_bytes(state))), strict=True)
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
