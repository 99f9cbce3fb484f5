"""Calibration samples of any pipeline: what its network is given while it makes images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edadm.calibration.allocate import assign_steps
from edadm.calibration.base import StepStatistics
from edadm.calibration.select import SELECTORS
from edadm.config.rules.timesteps import Timestep
from edadm.config.schema import Calibration
from edadm.errors import EdadmError
from edadm.library.presets import preset
from edadm.networks.families import family_of
from edadm.networks.inputs import Rows
from edadm.sampling.trajectory import recording_inputs, step_matrices

FEATURE_ROWS = 32  # of a batch, whose features tell steps apart
_ADDED = {"text_embeds": "pooled", "time_ids": "time_ids"}  # of `added_cond_kwargs`, by names of inputs
_LATENTS = ("sample", "hidden_states")  # what networks call the states that they are given
_READ = {*_LATENTS, "timestep", "encoder_hidden_states", "pooled_projections"}
_READ |= {"added_cond_kwargs", "return_dict"}


def calibrate(
    unet: nn.Module, run: Callable[[], object], calibration: str | Mapping[str, Any] = "tdac"
) -> Rows:
    """The inputs to learn from, chosen among all that a float network is given while a pipeline runs.

    Steps get samples as the calibration preset's selector says (TDAC: by density and variety of their
    features; method, 2.2 to 2.4); within a step, samples are taken from all images in turn.

    Args:
        unet: a `UNet2DModel`, `UNet2DConditionModel` or `SD3Transformer2DModel` of diffusers, which the
            pipeline calls.
        run: makes images with that pipeline, e.g. `lambda: pipe(batch_size=32, num_inference_steps=20)`;
            may call it several times, with as many steps each.
        calibration: a preset by name, or settings, such as `{"base": "tdac", "size": 64}`. Held-out samples
            are not taken.

    Returns:
        `size` inputs by name, in full precision, on the CPU.

    Raises:
        EdadmError: nothing was run, runs differ in their steps, or the network was given more than edadm can
            learn with, such as a ControlNet's residuals.
    """
    settings: Calibration = preset("calibrations", calibration)
    features = family_of(unet).feature_module(unet)
    with _recording(unet) as calls, recording_inputs(features, FEATURE_ROWS) as vectors, torch.no_grad():
        run()
    if not calls:
        raise EdadmError("no image was made; let `run` call a pipeline that has this network")
    steps = _steps(calls)
    counts = SELECTORS[settings.selector](_statistics(calls, vectors, steps), settings).counts
    chosen, taken = [], dict.fromkeys(steps, 0)
    for step in assign_steps(counts, settings.seed).tolist():
        timestep = steps[step]
        of_step = [call for call in calls if call.timesteps[0].item() == timestep]
        row = taken[timestep] % sum(map(len, of_step))
        taken[timestep] += 1
        for call in of_step:
            if row < len(call):
                chosen.append(call[row : row + 1])
                break
            row -= len(call)
    return Rows.concatenated(chosen).cast(torch.float32)


@contextmanager
def _recording(unet: nn.Module) -> Iterator[list[Rows]]:
    """Collects the rows of every call of a network inside the context, on the CPU."""
    calls: list[Rows] = []
    signature = inspect.signature(type(unet).forward)
    is_flow = family_of(unet).predictions == ("flow",)

    def keep(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        told = signature.bind(module, *args, **given).arguments
        calls.append(_rows({name: value for name, value in told.items() if name != "self"}, is_flow))

    handle = unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _rows(told: Mapping[str, Any], is_flow: bool) -> Rows:
    """The arguments of a call as rows; only a flow's timesteps are no whole numbers.

    Raises:
        EdadmError: there are some that no network here is given.
    """
    if more := sorted(name for name, value in told.items() if name not in _READ and value is not None):
        raise EdadmError(
            f"the network was called with {more[0]}, which edadm cannot learn with; calibrate without it"
        )
    sample: Tensor = next(told[name] for name in _LATENTS if name in told)
    given = torch.as_tensor(told["timestep"])
    timesteps = (given.float() if is_flow else given.round().long()).cpu().expand(len(sample))
    rows = {"latents": sample.detach().cpu().clone(), "timesteps": timesteps.clone()}
    if (context := told.get("encoder_hidden_states")) is not None:
        rows["context"] = context.detach().cpu()
    if (pooled := told.get("pooled_projections")) is not None:
        rows["pooled"] = pooled.detach().cpu()
    for name, tensor in (told.get("added_cond_kwargs") or {}).items():
        rows[_ADDED.get(name, name)] = tensor.detach().cpu()
    return Rows.of(rows)


def _steps(calls: list[Rows]) -> list[Timestep]:
    """The timesteps of the first image, in order.

    Raises:
        EdadmError: later images took others.
    """
    timesteps = [call.timesteps[0].item() for call in calls]
    steps = list(dict.fromkeys(timesteps[: _first_run(timesteps)]))
    if others := sorted(set(timesteps) - set(steps)):
        raise EdadmError(
            f"a later image has the timestep {others[0]}, the first one has not; give all the same steps"
        )
    return steps


def _first_run(timesteps: list[Timestep]) -> int:
    """How many calls the first images took: time falls within a run of a pipeline."""
    return next((at for at in range(1, len(timesteps)) if timesteps[at] > timesteps[at - 1]), len(timesteps))


def _statistics(calls: list[Rows], vectors: list[Tensor], steps: list[Timestep]) -> StepStatistics:
    """How far features of the first images' steps lie apart; of several calls at a step the last counts."""
    timesteps = [call.timesteps[0].item() for call in calls]
    of_step = {timesteps[at]: vectors[at] for at in range(_first_run(timesteps))}
    features = [of_step[step].float() for step in steps]
    distance, dissimilarity = step_matrices(features)
    return StepStatistics(
        distance.cpu().numpy() / features[0].numel(), dissimilarity.cpu().numpy().astype("float64")
    )
