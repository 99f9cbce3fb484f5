"""Corrections by name, fitted to what quantization did to a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edadm.config.schema import Model
from edadm.networks.inputs import Rows
from edadm.passes.corrections.d2_dpm import fit_d2_dpm
from edadm.passes.corrections.pairs import Pairs, predicted_pairs
from edadm.passes.corrections.ptqd import fit_ptqd
from edadm.passes.corrections.q_sched import fit_q_sched
from edadm.sampling.correction import Correction

FITS: dict[str, Callable[[Pairs], Correction]] = {
    "ptqd": fit_ptqd,
    "d2_dpm": fit_d2_dpm,
    "q_sched": fit_q_sched,
}


def fit_correction(
    name: str,
    float_unet: nn.Module,
    quantized_unet: nn.Module,
    rows: Rows,
    model: Model,
    batch_size: int = 128,
) -> Correction:
    """The correction of a quantized network's predictions, for the sampler of a model.

    Args:
        name: of `edadm.config.methods.CORRECTIONS`.
        float_unet, quantized_unet: the networks, rounding decided, on the device of the rows.
        rows: the calibration rows, as `select-calibration` leaves them.
        model: whose sampler is to be corrected.
        batch_size: rows per pass.

    Raises:
        EdadmError: predictions are not finite, or cannot be corrected in this way.
    """
    return FITS[name](predicted_pairs(float_unet, quantized_unet, rows, model, batch_size))
