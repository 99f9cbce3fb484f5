"""Scales of channels that are learned (learned equivalent scaling of DMQ, arXiv 2507.12933).

Of every layer, or of the layers that one norm feeds, the factors of the input channels descend on the error
of the output with weight and input quantized, on inputs of the float network. Grids are searched at first and
half-way, and move with the largest magnitudes in between. Each timestep weighs (1 - its share of the
errors)^focus, so that steps with small errors, the first of the sampler, are not drowned.

Factors are powers of two here, whose exponents descend as real numbers and are rounded in every step (the
gradient passes straight through), so that integer networks compute them where they compute smoothing. The
paper's are real numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.learning.steps.schedules import row_table
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import disabled, quantized_layers
from edadm.nn.layers import QuantizedLayer
from edadm.passes.scaling.product import Product
from edadm.passes.scaling.smooth import groups_of
from edadm.quant.policy import learns_scales
from edadm.quant.streams import Stream
from edadm.quant.transforms import LARGEST_EXPONENT

KEPT = 2**31  # bytes of inputs that are kept at once


@torch.no_grad()
def learn_scales(
    unet: nn.Module, inputs: Rows, bits: Bits, on_batch: Callable[[int], None] = lambda rows: None
) -> None:
    """Sets the factors of all layers whose scales are learned; none that makes its layer's error larger.

    Args:
        unet: a network after `quantize_network`, its weights still in floating point.
        inputs: of the network, the calibration rows, of which some are learned from.
        bits: which layers, and how.
        on_batch: told of rows as layers are finished, as many in all as there are.
    """
    told = bits.learned_scales
    if told is None:
        return
    layers = quantized_layers(unet)
    chosen = {n: layer for n, layer in layers.items() if layer.smooth is not None and learns_scales(n, bits)}
    groups, done = groups_of(unet, chosen), 0
    places = torch.linspace(0, len(inputs) - 1, min(told.rows, len(inputs))).round().long()
    rows = inputs[places.to(inputs.device)]
    for part in _portions(unet, rows, groups, layers):
        for names, x in part:
            product = Product([layers[name] for name in names], x, rows.timesteps, bits, told)
            is_voted = any(fnmatchcase(name, pattern) for name in names for pattern in told.voted)
            exponents = learned_exponents(product, is_voted, names[0])
            for name in names:
                layers[name].set_smoothing(exponents)
            done += 1
            on_batch(done * len(inputs) // len(groups) - (done - 1) * len(inputs) // len(groups))


def _portions(
    unet: nn.Module, rows: Rows, groups: Sequence[list[str]], layers: Mapping[str, QuantizedLayer]
) -> Iterator[list[tuple[list[str], Tensor]]]:
    """Groups of layers, each with its input over all rows, as many at once as memory allows for."""
    first = {names[0]: layers[names[0]] for names in groups}
    with disabled(unet), _listening(first) as one:
        network_call(unet, rows[:1])
    sizes = {name: x[0].nbytes * len(rows) for name, x in one.items()}
    part: list[list[str]] = []
    for index, names in enumerate(groups):
        part.append(names)
        following = sizes[groups[index + 1][0]] if index + 1 < len(groups) else KEPT
        if sum(sizes[name] for name, *_ in part) + following > KEPT:
            with disabled(unet), _listening({name: first[name] for name, *_ in part}) as found:
                network_call(unet, rows)
            yield [(names, found[names[0]]) for names in part]
            part = []


@contextmanager
def _listening(layers: Mapping[str, QuantizedLayer]) -> Iterator[dict[str, Tensor]]:
    """Collects the inputs of layers in a forward pass inside the context, as nothing has divided them."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, given, n=name: found.__setitem__(n, given[0]))
        for name, layer in layers.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def learned_exponents(product: Product, is_voted: bool, name: str) -> Int8[Tensor, " channels"]:
    """The exponents that were learned, or those from which they started where these have a smaller error.

    Args:
        product: of the layers that share them.
        is_voted: start from exponents by vote, if they are better than those that the layers have.
        name: keys the draws of rows.
    """
    own = product.layer.smoothing
    assert own is not None
    at_first = product.all_errors(own)
    running = product.by_step(at_first, product.steps)
    weights = product.weigh(running)[product.steps]
    tried = [(own, at_first)]

    def best() -> Tensor:
        return min(tried, key=lambda one: float((weights * one[1]).mean()))[0]

    if is_voted:
        voted = product.voted()
        tried.append((voted, product.all_errors(voted)))
    found = _descended(product, best(), running, name)
    tried.append((found, product.all_errors(found)))
    return best()


def _descended(
    product: Product, start: Int8[Tensor, " channels"], running: Float[Tensor, " steps"], name: str
) -> Int8[Tensor, " channels"]:
    told, rows = product.told, len(product.x)
    exponents = start.float().requires_grad_(True)
    optimizer = torch.optim.Adam([exponents], lr=told.learning_rate)
    step = torch.zeros((), dtype=torch.int32, device=product.x.device)
    stream = Stream.of(told.seed, "scales", name, step=step)
    product.search(start)
    unit = running.mean().clamp(min=torch.finfo(running.dtype).tiny)
    for index, drawn in enumerate(row_table(told.iterations, told.batch_size, rows, stream)):
        if index == told.iterations // 2:
            product.search(_rounded(exponents))
        optimizer.param_groups[0]["lr"] = told.learning_rate * (1 - index / told.iterations)
        with torch.enable_grad():
            rounded = exponents + (exponents.round() - exponents).detach()
            errors = product.errors(torch.exp2(rounded), drawn) / unit
            weights = product.weigh(running)[product.steps[drawn]]
            optimizer.zero_grad()
            (weights * errors).mean().backward()
        optimizer.step()
        fresh = product.by_step(errors.detach() * unit, product.steps[drawn])
        running = torch.where(fresh.isnan(), running, torch.lerp(fresh, running, told.momentum))
    return _rounded(exponents)


def _rounded(exponents: Tensor) -> Int8[Tensor, " channels"]:
    return exponents.detach().round().clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).to(torch.int8)
