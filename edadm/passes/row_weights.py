"""Weights of calibration rows, by Gradient-Aligned Calibration (arXiv 2602.01289).

Before a unit learns, each row gets a weight `softmax(s)`, found by two nested problems. Inside, one step of
gradient descent on the weighted errors moves the unit's rounding variables. Outside, the weights are chosen
so that the moved unit has small errors on validation rows, and that gradients of different timesteps agree:
with G_t the gradient, by the weights, of the error of group t of these rows, the loss is the mean error less
the mean inner product of all pairs G_t, G_k (the paper's surrogate, its theorem 4.1). Rows are then drawn
with their weights as probabilities, so that a learning step's loss is the weighted one in expectation.

From the paper: the two problems, 5 groups of timesteps, 5 % of the rows for validation, the softmax, weights
anew for each unit, activations unquantized meanwhile. Of ours: the lengths and the number of steps, and that
second derivatives, and products of gradients with a direction, are differences of gradients and of errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.learning.capture.data import UnitData
from edadm.learning.task import Task
from edadm.networks.units.unit import Unit
from edadm.nn.insert import disabled, undecided
from edadm.passes.base import Pass

GROUPS = 5  # of timesteps
EVERY = 20  # of so many rows, sorted by timestep, one validates
STEPS = 4  # of the weights
RATE = 0.5  # Adam's, of s
INNER = 0.1  # the largest change of a rounding variable by the inner step
PROBE = 0.02  # and by a difference


class RoundingErrors:
    """The errors of a unit's rows as functions of its rounding variables.

    Args:
        module: the unit, its rounding soft.
        data: its inputs and targets.
        alphas: the rounding variables.
        batch_size: rows per pass.
    """

    def __init__(self, module: nn.Module, data: UnitData, alphas: Sequence[Tensor], batch_size: int):
        self._module, self._data, self.alphas, self._size = module, data, alphas, batch_size
        self._device = alphas[0].device

    def _of(self, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Squared errors summed over axis 1, averaged over the others, of each row."""
        output = self._data.quantized.rows(rows).call(self._module)
        apart = output - self._data.target[rows].to(self._device)
        return apart.square().sum(1).reshape(len(rows), -1).mean(1)

    @torch.no_grad()
    def of(self, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The error of each row."""
        return torch.cat([self._of(part) for part in rows.split(self._size)])

    def gradient(self, rows: Int[Tensor, " m"], weights: Float[Tensor, " m"]) -> list[Tensor]:
        """The gradient, by the rounding variables, of the weighted sum of the rows' errors."""
        total = [torch.zeros_like(alpha) for alpha in self.alphas]
        for part, share in zip(rows.split(self._size), weights.split(self._size), strict=True):
            with torch.enable_grad():
                loss = (self._of(part) * share).sum()
                found = torch.autograd.grad(loss, list(self.alphas), allow_unused=True)
            for whole, one in zip(total, found, strict=True):
                if one is not None:
                    whole += one
        return total

    @contextmanager
    def moved(self, direction: Sequence[Tensor], by: float) -> Iterator[None]:
        """Inside the context the rounding variables stand further along a direction."""
        before = [alpha.detach().clone() for alpha in self.alphas]
        with torch.no_grad():
            for alpha, step in zip(self.alphas, direction, strict=True):
                alpha.add_(step, alpha=by)
        try:
            yield
        finally:
            with torch.no_grad():
                for alpha, old in zip(self.alphas, before, strict=True):
                    alpha.copy_(old)

    def along(self, rows: Int[Tensor, " m"], direction: Sequence[Tensor]) -> Float[Tensor, " m"]:
        """The inner product of each row's gradient with a direction, by central differences of errors."""
        by = _length(direction, PROBE)
        with self.moved(direction, by):
            ahead = self.of(rows)
        with self.moved(direction, -by):
            behind = self.of(rows)
        return (ahead - behind) / (2 * by)

    def curvature(self, rows: Int[Tensor, " m"], direction: Sequence[Tensor]) -> list[Tensor]:
        """The product of the second derivative of the rows' mean error with a direction, likewise."""
        by, equal = _length(direction, PROBE), torch.full((len(rows),), 1 / len(rows), device=self._device)
        with self.moved(direction, by):
            ahead = self.gradient(rows, equal)
        with self.moved(direction, -by):
            behind = self.gradient(rows, equal)
        return [(one - other) / (2 * by) for one, other in zip(ahead, behind, strict=True)]


def _length(direction: Sequence[Tensor], change: float) -> float:
    """How far to go along a direction so that no variable changes by more."""
    largest = max(step.abs().max().item() for step in direction)
    return change / largest if largest > 0 else 1.0


def weights_gradient(
    errors: RoundingErrors,
    rows: Int[Tensor, " n"],
    groups: Sequence[Int[Tensor, " _"]],
    weights: Float[Tensor, " n"],
    rate: float,
) -> Float[Tensor, " n"]:
    """The gradient, by the weights, of the outer loss after an inner step with these weights.

    With g_i the gradient of row i's error, G_t and H_t first and second derivatives of group t's after the
    step, and A_t[i] = -rate g_i G_t, the loss is the mean error of the groups less the mean of A_t A_k over
    pairs. Its gradient is the mean of A_t, less rate^2 times the mean over pairs of g (H_t u_t + H_k u_k),
    where u_t is the sum of the g_i weighted with A_k.

    Args:
        errors: of the unit.
        rows: that are weighted.
        groups: validation rows by timestep.
        weights: of `rows`.
        rate: of the inner step.
    """
    step = errors.gradient(rows, weights)
    with errors.moved(step, -rate):
        firsts = [errors.gradient(group, weights.new_full((len(group),), 1 / len(group))) for group in groups]
    parts = torch.stack([-rate * errors.along(rows, first) for first in firsts])
    others = parts.sum(0) - parts
    sums = [errors.gradient(rows, other) for other in others]
    with errors.moved(step, -rate):
        seconds = [errors.curvature(group, u) for group, u in zip(groups, sums, strict=True)]
    bent = [torch.stack(same).sum(0) for same in zip(*seconds, strict=True)]
    pairs = len(groups) * (len(groups) - 1) / 2
    return parts.mean(0) - rate**2 / max(pairs, 1) * errors.along(rows, bent)


def learned_weights(
    errors: RoundingErrors, rows: Int[Tensor, " n"], groups: Sequence[Int[Tensor, " _"]], steps: int = STEPS
) -> Float[Tensor, " n"]:
    """The weights of rows, which sum to 1, after so many steps from equal ones."""
    scores = torch.zeros(len(rows), device=errors.alphas[0].device, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=RATE)
    rate = 0.0
    for _ in range(steps):
        weights = scores.detach().softmax(0)
        rate = rate or _length(errors.gradient(rows, weights), INNER)
        by_weight = weights_gradient(errors, rows, groups, weights, rate)
        scores.grad = weights * (by_weight - (weights * by_weight).sum())
        optimizer.step()
    return scores.detach().softmax(0)


def parted(
    timesteps: Int[Tensor, " n"] | Float[Tensor, " n"],
) -> tuple[Int[Tensor, " m"], list[Int[Tensor, " _"]]]:
    """Rows that are weighted, and groups of those that validate, by timestep, the least noisy first."""
    order = timesteps.argsort(stable=True)
    every = max(1, min(EVERY, len(order) // GROUPS))
    validating = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    validating[every // 2 :: every] = True
    groups = [group for group in order[validating].tensor_split(GROUPS) if len(group)]
    return order[~validating].sort().values, groups


def weigh_rows(task: Task, unit: Unit, data: UnitData) -> Float[Tensor, " n"] | None:
    """The weights of the rows that a unit learns from; those that validate have none.

    None where there are too few rows to put any aside, or nothing of the unit is left to learn.
    """
    module = task.quantized_unet.get_submodule(unit.name)
    layers = list(undecided(module)[0].values())
    rows, groups = parted(task.inputs.timesteps[: data.learned].cpu())  # tables may lie off the device
    if len(rows) < GROUPS or not layers:
        return None
    try:
        alphas = [layer.start_rounding() for layer in layers]
        with disabled(module):
            errors = RoundingErrors(module, data, alphas, task.settings.chain_batch_size)
            found = learned_weights(errors, rows, groups)
    finally:
        for layer in layers:
            layer.alpha = None
    weights = torch.zeros(data.learned, device=found.device)
    weights[rows] = found
    return weights


WEIGH_ROWS = Pass(frozenset({"weights", "rows"}), frozenset(), before_unit=weigh_rows)
