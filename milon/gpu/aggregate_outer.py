"""What an aggregation does with its result and remembers for the next round: outer optimizers, and a centre.

The memory lies in the round's state as "outer.<slot>.<name>", binary32, beside the tensor "model.<name>" it belongs
to, so that it is under the state's id and nobody's free choice. A slot that is not there yet stands for its first
value. Every step is one binary64 operation an element (+ - * / and the root), so all devices come to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.gpu.aggregate_rules import add_once_rounded
from milon.gpu.aggregate_updates import Place
from milon.gpu.checkpoint import MODEL_PREFIX, OUTER_PREFIX
from milon.pol.pipeline import Outer, Pipeline, Rule

CENTRE = "centre"  # centered clipping's: the round before's result, per step
SLOTS: dict[Outer, tuple[str, ...]] = {
    Outer.PLAIN: (),
    Outer.MOMENTUM: ("momentum",),
    Outer.NESTEROV: ("momentum",),
    Outer.ADAM: ("first", "second"),
}
ADAM_FIRST, ADAM_SECOND = 0.9, 0.99  # the decay of both moments, as Reddi et al. 2021 choose them
ADAM_LEAST = 1e-3  # their tau: added to the root, and the first root of the second moment


def slot_name(slot: str, name: str) -> str:
    """The name of a slot of "model.<name>"."""
    return f"{OUTER_PREFIX}{slot}.{name.removeprefix(MODEL_PREFIX)}"


def slots_of(pipeline: Pipeline) -> tuple[str, ...]:
    """What the pipeline remembers from round to round."""
    centre = (CENTRE,) if pipeline.rule is Rule.CENTERED_CLIPPING else ()
    return centre + SLOTS[pipeline.outer]


def split_memory(round_state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A round's state without its memory, and the memory."""
    state = {name: tensor for name, tensor in round_state.items() if not name.startswith(OUTER_PREFIX)}
    return state, {name: tensor for name, tensor in round_state.items() if name.startswith(OUTER_PREFIX)}


def make_memory(pipeline: Pipeline, held: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of what the pipeline remembers, with first values for what is not held yet.

    `state` has the tensors that rules combine. Raises `Rejected(MALFORMED)` for a memory that no earlier round of such
    a pipeline left.
    """
    memory: dict[str, Tensor] = {}
    for slot in slots_of(pipeline):
        for name, tensor in state.items():
            memory[slot_name(slot, name)] = torch.full_like(tensor, ADAM_LEAST**2 if slot == "second" else 0.0)
    for name, tensor in held.items():
        is_known = name in memory and tensor.dtype == torch.float32 and tensor.shape == memory[name].shape
        require(is_known, Reason.MALFORMED, f"{name} is nothing that {pipeline.text} remembers")
        if not bool(tensor.isfinite().all()):
            raise Rejected(Reason.NOT_FINITE, f"{name} of the round's own state")
        memory[name].copy_(tensor)
    return memory


class Mover:
    """Moves the model's tensors by the rule's results, and the memory with them."""

    def __init__(self, pipeline: Pipeline, memory: dict[str, Tensor]) -> None:
        """`memory` is changed in place."""
        self._pipeline = pipeline
        self._memory = memory

    @property
    def is_plain(self) -> bool:
        """Whether every tensor just moves by the change, and nothing is remembered."""
        return not self._memory and self._pipeline.outer is Outer.PLAIN

    def keep_centre(self, place: Place, grid: Tensor, exponent: int) -> None:
        """Remember the result per step, grid * 2^exponent, where the rule wants it next time."""
        held = self._memory.get(slot_name(CENTRE, place.name))
        if held is not None:
            held.view(-1)[place.start : place.end] = (grid.to(torch.float64) * 2.0**exponent).to(torch.float32)

    def move(self, place: Place, base: Tensor, grid: Tensor, exponent: int, is_trained: bool) -> Tensor:
        """The new values, binary32, of `base` under the change grid * 2^exponent (|grid| at most 2^53).

        What no gradient moves is not for an optimizer: it moves by the change itself.
        """
        outer, numbers = self._pipeline.outer, self._pipeline.outer_numbers
        if outer is Outer.PLAIN or not is_trained:
            return add_once_rounded(base, grid, exponent)
        change = grid.to(torch.float64) * 2.0**exponent
        if outer is Outer.ADAM:
            step = self._step_adam(place, change, numbers[0] / 1000.0)
        else:
            momentum, rate = numbers[0] / 1000.0, numbers[1] / 1000.0
            speed = self._decay(place, "momentum", momentum, change)
            step = (speed if outer is Outer.MOMENTUM else speed * momentum + change) * rate
        return (base.to(torch.float64) + step).to(torch.float32)

    def _decay(self, place: Place, slot: str, factor: float, added: Tensor) -> Tensor:
        """The slot times `factor` plus `added`, as it is kept from now on, in binary64."""
        held = self._memory[slot_name(slot, place.name)].view(-1)[place.start : place.end]
        held.copy_((held.to(torch.float64) * factor + added).to(torch.float32))
        return held.to(torch.float64)

    def _step_adam(self, place: Place, change: Tensor, rate: float) -> Tensor:
        """FedAdam (Reddi et al. 2021, algorithm 2): no correction of the first rounds' bias."""
        first = self._decay(place, "first", ADAM_FIRST, change * (1.0 - ADAM_FIRST))
        second = self._decay(place, "second", ADAM_SECOND, change * change * (1.0 - ADAM_SECOND))
        return first * rate / (second.sqrt() + ADAM_LEAST)
