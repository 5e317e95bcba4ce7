"""Ordinary models of every kind capture without special handling, learn as stock torch does, and keep their bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.cases import CASES, Case, capture_case, make_batch, make_model
from bench.golden import compute_digest, read_vectors, unpack
from milon.gpu.interpreter import load
from milon.gpu.philox import draw_uniform
from milon.gpu.randomness import drawing
from milon.pol.program import StepKey

STEPS = 3


class Stock:
    """The same job in eager torch, with its own kernels and the same draws."""

    def __init__(self, case: Case) -> None:
        self.case, self.model = case, make_model(case)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = case.optimizer(self.parameters)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, number: int) -> Tensor:
        """One step; its loss."""
        recipe, draws = self.case.recipe, iter(range(10_000))

        def draw(shape: tuple[int, ...]) -> Tensor:
            return draw_uniform(StepKey(bytes(32), 0, 0, number), next(draws), shape, torch.device("cpu"))

        self.optimizer.zero_grad()
        losses = []
        for part in recipe.split(make_batch(self.case, number)):
            with drawing(draw):
                loss = self.case.loss(self.model(part[0]), part[1])
            (loss / recipe.accumulate).backward()
            losses.append(loss.detach())
        if recipe.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, recipe.clip_value)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm)
        factor = float(recipe.compute_factor(torch.tensor(float(number))))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        return torch.stack(losses).mean()


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_model_of_this_kind_learns_as_in_stock_torch(name: str) -> None:
    case = CASES[name]
    job, stock = capture_case(case), Stock(case)
    plan, state = load(job.train), job.state
    for step in range(STEPS):
        result = plan.run(state, make_batch(case, step), StepKey(bytes(32), 0, 0, step))
        state = result.new_state
        assert result.loss is not None
        # Lion steps by signs and Muon goes by way of bfloat16 in stock torch: a little noise grows there.
        tolerance = 2e-2 if name in ("vision-transformer", "muon") else 2e-4
        torch.testing.assert_close(result.loss, stock.step(step), rtol=tolerance, atol=tolerance)
    frozen = {f"model.{key}" for key, tensor in stock.model.named_parameters() if not tensor.requires_grad}
    assert all(torch.equal(state[key], job.state[key]) for key in frozen)
    stock.model.eval()
    inputs, target = (tensor[:4] for tensor in make_batch(case, 0))
    found = load(job.evaluate[0]).run(state, (inputs, target), None).loss
    assert found is not None
    torch.testing.assert_close(found, case.loss(stock.model(inputs), target).detach(), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_model_keeps_its_bits(name: str) -> None:
    vector = read_vectors()[name]
    assert compute_digest(unpack(vector["program"])) == vector["digest"]
