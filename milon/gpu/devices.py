"""Which devices training runs on, and how each is brought to the bits of all others; only here is a kind of GPU named.

`python -m milon.gpu.devices NAME` ends with 0 where work can run on NAME, and with 2 and the reason where it cannot.
torch is loaded inside the functions that need it, so that others may read the names without it.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milon.base.errors import Reason, Rejected, require

if TYPE_CHECKING:
    from torch import Tensor

AUTO, CPU, GPU = "auto", "cpu", "cuda"
HELP = f"{AUTO}, {CPU} or {GPU}[:i]: where training runs; {AUTO}: the GPUs where there are any."
SHARD_OPERATIONS_MIN = 1 << 32  # of a step, on each of several GPUs: below, they would wait for one another
DIGIT_WORK_MIN = 1 << 24  # elementary steps of a product: below, four launches cost more than one in binary64
_NAME = re.compile(rf"{AUTO}|{CPU}|{GPU}(?::(\d{{1,3}}))?")
_TILE = 8  # int8 products of a GPU want inner and column sizes that are multiples of it
_ROWS_MIN = 24  # and more than 16 rows


@dataclass(frozen=True, slots=True)
class Choice:
    """What a process computes on."""

    devices: tuple[str, ...]  # torch's names, at least one; one named several times holds several shards
    is_fixed: bool  # whether every program is dealt out to all of them, however small

    def spread(self, operations: int) -> tuple[str, ...]:
        """The devices for a program whose step takes so many elementary steps."""
        if self.is_fixed:
            return self.devices
        return self.devices[: max(1, operations // SHARD_OPERATIONS_MIN)]


ON_CPU = Choice((CPU,), False)


def verify_name(wanted: str) -> None:
    """Raise `Rejected(OUT_OF_RANGE)` unless `wanted` can name a device; whether it is there is not looked at."""
    names = f"{AUTO}, {CPU}, {GPU} or {GPU}:0"
    require(_NAME.fullmatch(wanted) is not None, Reason.OUT_OF_RANGE, f"device {wanted[:40]!r}; it may be {names}")


def choose(wanted: str, shards: int = 0) -> Choice:
    """The devices for `wanted`; with `shards`, so many parts of every batch, dealt out to them in turn.

    Raises `Rejected`: OUT_OF_RANGE for a name that is none, UNAVAILABLE where that device is not here.
    """
    verify_name(wanted)
    found = (CPU,) if wanted == CPU else _find_gpus(wanted) or (CPU,)
    if shards:
        return Choice(tuple(found[shard % len(found)] for shard in range(shards)), True)
    return Choice(found, False)


def count_gpus() -> int:
    """How many GPUs torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _find_gpus(wanted: str) -> tuple[str, ...]:
    """The GPUs that `wanted` names; for `auto` perhaps none."""
    count = count_gpus()
    matched = _NAME.fullmatch(wanted)
    number = matched[1] if matched else None
    if wanted != AUTO and count <= int(number or 0):
        here = f"torch sees {count} GPUs here" if count else f"torch {_version()} sees no GPU here"
        raise Rejected(
            Reason.UNAVAILABLE,
            f"{here}; nothing was started, since work on {wanted} is impossible; "
            f"use --device {CPU} or --device {AUTO}, or install a build of torch for the GPU and its driver",
        )
    return tuple(f"{GPU}:{place}" for place in range(count)) if number is None else (wanted,)


def _version() -> str:
    import torch

    return str(torch.__version__)


def prepare(choice: Choice) -> None:
    """Make the devices compute exactly, and take the quicker of two ways to a product there.

    Raises `Rejected(UNAVAILABLE)` where a GPU gives other bits than the CPU on a sample.
    """
    import torch

    from milon.gpu import fast

    gpus = sorted({name for name in choice.devices if name != CPU})
    if not gpus:
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    for name in gpus:
        verify_bits(name)
    if all(agrees_in_digits(name) and _is_quicker_in_digits(name) for name in gpus):
        fast.use_product(GPU, multiply)


def verify_bits(name: str) -> None:
    """Raise `Rejected(UNAVAILABLE)` where a device rounds otherwise than the CPU, or flushes subnormals.

    The large product is one that a library may be tempted to compute by other means than binary64 additions.
    """
    import torch

    from milon.gpu import exact, fast
    from milon.gpu.elementary import FUNCTIONS, evaluate

    routes: list[Callable[[Tensor], Tensor]] = [
        lambda values: exact.exact_matmul(values, values.t(), 21),
        lambda values: exact.exact_matmul(values.t(), values, 13),
        lambda values: exact.exact_sum(values, [0], False),
        lambda values: values / values.flip(0),
        lambda values: values * values.flip(1),
        *(lambda values, function=function: evaluate(function, values) for function in FUNCTIONS),
    ]
    large = torch.arange(1 << 19).mul(40_503).remainder((1 << 22) - 1).sub(1 << 21).float().reshape(256, 2048)
    checks = [(sample, route) for sample in fast.samples() for route in routes] + [(large, routes[0])]
    for sample, route in checks:
        if not fast.is_same(route(sample.to(torch.device(name))).cpu(), route(sample)):
            raise Rejected(
                Reason.UNAVAILABLE,
                f"{name} does not give the bits of the rules; work on it would be refused by all others; "
                f"use --device {CPU}",
            )


def multiply(left: Tensor, right: Tensor, bits: int) -> Tensor:
    """`exact.exact_matmul`, large products with M = 13 by int8 digits."""
    from milon.gpu import exact, fast

    is_large = left.numel() * right.shape[-1] >= DIGIT_WORK_MIN
    is_fit = left.dim() == 2 and bits == fast.DIGIT_BITS and left.shape[1] <= fast.DIGIT_TERMS_MAX
    return multiply_in_digits(left, right) if is_large and is_fit else exact.exact_matmul(left, right, bits)


def multiply_in_digits(left: Tensor, right: Tensor) -> Tensor:
    """[rows, inner] times [inner, columns] by rule N4 with M = 13: four products of digits to base 128 in int32."""
    import torch

    from milon.gpu import exact, fast

    rows, inner, columns = left.shape[0], left.shape[1], right.shape[1]
    left_integers, left_back = exact.quantize(left, -1, fast.DIGIT_BITS)
    right_integers, right_back = exact.quantize(right, -2, fast.DIGIT_BITS)
    shapes = (
        (max(rows, _ROWS_MIN), -(-inner // _TILE) * _TILE),
        (-(-inner // _TILE) * _TILE, -(-columns // _TILE) * _TILE),
    )
    left_digits = _digits(left_integers, left_back, shapes[0])
    right_digits = _digits(right_integers, right_back, shapes[1])
    total = torch.zeros(shapes[0][0], shapes[1][1], dtype=torch.float64, device=left.device)
    for one, high in zip(left_digits, (128.0, 1.0), strict=True):
        for other, scale in zip(right_digits, (128.0, 1.0), strict=True):
            total += torch._int_mm(one, other).double() * (high * scale)  # exact: far below 2^53
    return total[:rows, :columns].add(0.0).mul_(left_back).mul_(right_back).float()


def _digits(integers: Tensor, back: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The higher and the lower digit, in -64 to 64, padded with zeros; zeros where a group holds no finite numbers."""
    import torch

    sound = torch.where(back.isnan(), 0.0, integers)
    high = ((sound + 64.0) / 128.0).floor_()
    low = sound - high * 128.0
    padding = (0, shape[1] - sound.shape[1], 0, shape[0] - sound.shape[0])
    return tuple(torch.nn.functional.pad(digit.to(torch.int8), padding) for digit in (high, low))  # type: ignore[return-value]  # two, as there are two digits


def agrees_in_digits(name: str) -> bool:
    """Whether products of digits on that device give the bits of the reference on the CPU; warns where they do not."""
    import torch

    from milon.gpu import exact, fast

    device = torch.device(name)
    for sample in fast.samples():
        for left, right in ((sample, sample.t()), (sample.t(), sample)):
            wanted = exact.exact_matmul(left, right, fast.DIGIT_BITS)
            try:
                found = multiply_in_digits(left.to(device), right.to(device)).cpu()
            except RuntimeError as error:  # a library without such a product says so in this way
                warnings.warn(f"int8 products do not run on {name} and are not used: {error}", stacklevel=2)
                return False
            if not fast.is_same(found, wanted):
                warnings.warn(f"int8 products are wrong on {name} and are not used", stacklevel=2)
                return False
    return True


def _is_quicker_in_digits(name: str) -> bool:
    import torch

    from milon.gpu import exact, fast

    values = torch.arange(1 << 20, device=torch.device(name)).remainder(8191).float().reshape(1024, 1024)

    def measure(product: Callable[[], Tensor]) -> float:
        best = 1e9
        for _ in range(4):
            torch.cuda.synchronize(values.device)
            began = time.perf_counter()
            product()
            torch.cuda.synchronize(values.device)
            best = min(best, time.perf_counter() - began)
        return best

    digits = measure(lambda: multiply_in_digits(values, values))
    return digits < measure(lambda: exact.exact_matmul(values, values, fast.DIGIT_BITS))


def main() -> int:
    """Whether work can run on the device that is named."""
    try:
        choose(sys.argv[1] if len(sys.argv) > 1 else AUTO)
    except Rejected as refused:
        print(refused.detail, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
