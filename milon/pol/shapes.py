"""Element types and shapes of tensors as plain integers, so that a program can be checked where no tensor exists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.errors import Reason, Rejected, require

RANK_MAX = 8  # the deepest tensor in use has six axes (windows of a batch of images)
ELEMENTS_MAX = 1 << 34  # 64 GiB of binary32: above any budget, and keeps every product of sizes small


class DType(StrEnum):
    """What an element is. Binary32 is the only floating type that enters or leaves a program."""

    FLOAT32 = "float32"
    INT64 = "int64"
    BOOL = "bool"


WIDTH_BYTES = {DType.FLOAT32: 4, DType.INT64: 8, DType.BOOL: 1}
DTYPES = (DType.FLOAT32, DType.INT64, DType.BOOL)  # an attribute names a type by its place here


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and sizes of one tensor."""

    dtype: DType  # of every element
    shape: tuple[int, ...]  # sizes, outermost axis first; () is a scalar

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return compute_product(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes its elements take."""
        return self.elements * WIDTH_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"


def compute_product(sizes: tuple[int, ...]) -> int:
    """The product of `sizes`; 1 for none."""
    product = 1
    for size in sizes:
        product *= size
    return product


def verify_shape(shape: tuple[int, ...]) -> None:
    """Raise `Rejected` unless `shape` has a bounded rank, sizes of at least 1 and a bounded number of elements."""
    require(len(shape) <= RANK_MAX, Reason.OUT_OF_RANGE, f"rank {len(shape)} where {RANK_MAX} is the most")
    product = 1
    for size in shape:
        require(1 <= size <= ELEMENTS_MAX, Reason.OUT_OF_RANGE, f"an axis of size {size}")
        product *= size
        require(product <= ELEMENTS_MAX, Reason.OVER_BUDGET, f"shape {list(shape)} has too many elements")


def compute_broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The shape both broadcast to, axes aligned at the end; `Rejected(DOES_NOT_FIT)` when there is none."""
    rank = max(len(left), len(right))
    wide_left = (1,) * (rank - len(left)) + left
    wide_right = (1,) * (rank - len(right)) + right
    for one, other in zip(wide_left, wide_right, strict=True):
        if one != other and 1 not in (one, other):
            raise Rejected(Reason.DOES_NOT_FIT, f"shapes {list(left)} and {list(right)} do not broadcast")
    return tuple(max(one, other) for one, other in zip(wide_left, wide_right, strict=True))


def compute_reduced(shape: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> tuple[int, ...]:
    """The shape left when `axes` (distinct, ascending, in range) are reduced; `keep` leaves them with size 1."""
    verify_axes(axes, len(shape))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return kept if keep else tuple(size for axis, size in enumerate(shape) if axis not in axes)


def verify_axes(axes: tuple[int, ...], rank: int) -> None:
    """Raise `Rejected` unless `axes` ascend strictly within a tensor of `rank` axes."""
    require(len(axes) <= RANK_MAX, Reason.OUT_OF_RANGE, f"{len(axes)} axes")
    for place, axis in enumerate(axes):
        require(0 <= axis < rank, Reason.OUT_OF_RANGE, f"axis {axis} of a tensor with {rank}")
        require(place == 0 or axes[place - 1] < axis, Reason.NOT_CANONICAL, f"axes {list(axes)} do not ascend")


def compute_windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows fit along an axis of `size` elements; `Rejected` when there is none."""
    for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        require(1 <= value <= 1 << 20, Reason.OUT_OF_RANGE, f"{name} {value}")
    require(0 <= padding <= 1 << 20, Reason.OUT_OF_RANGE, f"padding {padding}")
    span = dilation * (kernel - 1) + 1
    room = size + 2 * padding - span
    require(room >= 0, Reason.DOES_NOT_FIT, f"a window of {span} over an axis of {size} + 2 * {padding}")
    return room // stride + 1
