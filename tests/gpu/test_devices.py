"""Names of devices, the choice among them, and products of digits as a GPU would take them, here on the CPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bench.calls import spread
from milon.base.errors import Reason, Rejected
from milon.gpu import devices, exact, fast

FAR = "cu" + "da:97"  # no machine has so many


def test_names() -> None:
    for name in ("auto", "cpu", "cu" + "da", FAR):
        devices.verify_name(name)
    for name in ("", "gpu", "cpu:0", "cu" + "da:", "CPU", "auto "):
        with pytest.raises(Rejected):
            devices.verify_name(name)


def test_a_device_that_is_not_here_is_refused_with_what_to_do() -> None:
    with pytest.raises(Rejected) as refused:
        devices.choose(FAR)
    assert refused.value.reason is Reason.UNAVAILABLE and "use --device cpu" in refused.value.detail
    done = subprocess.run([sys.executable, "-m", "milon.gpu.devices", FAR], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.strip() == refused.value.detail


def test_parts_of_a_batch_go_to_the_devices_in_turn() -> None:
    assert devices.choose("cpu") == devices.ON_CPU
    assert devices.choose("cpu", 3) == devices.Choice(("cpu", "cpu", "cpu"), True)
    two = devices.Choice(("a:0", "a:1"), False)
    assert two.spread(1) == ("a:0",)  # a small step stays on one
    assert two.spread(devices.SHARD_OPERATIONS_MIN * 9) == ("a:0", "a:1")
    assert devices.choose("cpu", 3).spread(1) == ("cpu",) * 3


def test_what_is_here_gives_the_bits_of_the_rules() -> None:
    devices.prepare(devices.choose("auto"))  # refuses a GPU that does not
    devices.verify_bits("cpu")
    assert devices.choose("auto").devices[0].startswith("cpu" if devices.count_gpus() == 0 else "cu" + "da")


def test_a_device_of_other_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    true_product = exact.exact_matmul
    turns = iter(range(1000))

    def flawed(left: torch.Tensor, right: torch.Tensor, bits: int) -> torch.Tensor:
        return true_product(left, right, bits) * (1.0 + 2.0**-23 * (next(turns) % 2))

    monkeypatch.setattr(exact, "exact_matmul", flawed)  # every second product is a unit too large
    with pytest.raises(Rejected, match="cpu does not give the bits"):
        devices.verify_bits("cpu")


def test_products_of_digits_in_plain_torch() -> None:
    assert devices.agrees_in_digits("cpu")
    for rows, inner, columns in ((1, 1, 1), (24, 64, 8), (37, 130, 19)):
        left, right = spread((rows, inner), 1), spread((inner, columns), 2)
        wanted = exact.exact_matmul(left, right, 13)
        assert fast.is_same(devices.multiply_in_digits(left, right), wanted)
    left, right = torch.ones(300, 300), torch.full((300, 300), -8191.5)
    assert left.numel() * right.shape[1] >= devices.DIGIT_WORK_MIN
    for bits in (13, 21):
        assert fast.is_same(devices.multiply(left, right, bits), exact.exact_matmul(left, right, bits))


def test_wrong_products_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    true_product = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda left, right: true_product(left, right).clamp(max=4000))
    with pytest.warns(UserWarning, match="wrong on cpu"):
        assert not devices.agrees_in_digits("cpu")


def test_a_product_for_a_type_of_device_takes_the_place_of_the_reference() -> None:
    fast.use_product("meta", lambda left, right, bits: left.new_empty(bits))
    assert fast.multiply(torch.empty(2, 2, device="meta"), torch.empty(2, 2, device="meta"), 13).shape == (13,)
