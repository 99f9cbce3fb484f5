"""Writing a quantized checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from edadm.artifacts import writing
from edadm.config.schema import Bits
from edadm.deploy.checkpoint.corrections import CORRECTION
from edadm.deploy.checkpoint.header import FORMAT_VERSION, Facts, compact_json, digest
from edadm.deploy.checkpoint.network import described, unquantized_parameters
from edadm.deploy.grid_packing import compact
from edadm.deploy.grids import grids, quantizers, refuse, transforms
from edadm.errors import EdadmError
from edadm.kernels.packing import pack4
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers, site_schemes
from edadm.nn.layers import QuantizedLayer
from edadm.nn.sound import code_flaws, float_flaws
from edadm.quant.policy import policy
from edadm.quant.scheme import to_table


def save_quantized(
    unet: nn.Module,
    path: Path,
    architecture: Architecture,
    bits: Bits,
    provenance: Mapping[str, Any],
    calibrated_at: Sequence[int] | None = None,
    correction: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a U-Net whose weights are all folded codes; the same model gives the same bytes.

    Tensors: per layer `NAME.codes` (uint8; packed by `kernels.packing.pack4` where the weight has 4 bits or
    fewer), `NAME.bias`, `NAME.smooth` where it is smoothed, `NAME.down` and `NAME.up` of its branch; grids
    as in `deploy.grid_packing`; all other parameters under their own names. The header says the scheme of
    each site.

    Args:
        unet: the network.
        path: of the file.
        architecture: of the float network.
        bits: widths that the schemes were derived from.
        provenance: how it was made.
        calibrated_at: height and width of the latents that grids were searched with, if that is known.
        correction: tables of a correction in the sampler, by name, if there is one.

    Raises:
        EdadmError: the network lacks quantizers, or holds numbers that no file may hold; nothing is written.
    """
    layers = quantized_layers(unet)
    whole = described(architecture, lambda sites: policy(sites, bits))
    if absent := sorted(quantizers(whole).keys() - quantizers(unet).keys()):
        raise EdadmError(
            f"the network has lost {len(absent)} of its grids, such as {absent[0]}; "
            "load it again, and save that"
        )
    unquantized = unquantized_parameters(unet, layers)
    refuse(code_flaws(unet), "nothing was written; quantize the network again")
    refuse(
        float_flaws(unquantized.items()),
        "nothing was written; convert the checkpoint again, and look for such numbers in it",
    )
    tensors = compact(grids(unet), quantizers(unet)) | transforms(unet)
    for name, layer in layers.items():
        codes = layer.codes.contiguous()  # type: ignore[union-attr]
        tensors[f"{name}.codes"] = pack4(codes) if layer.weight_quantizer.bits <= 4 else codes
    tensors |= {name: parameter.detach().float().contiguous() for name, parameter in unquantized.items()}
    tensors |= {CORRECTION + name: table for name, table in (correction or {}).items()}
    tensors = {name: tensors[name].cpu() for name in sorted(tensors)}
    facts: Facts = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture.model_dump(mode="json"),
        "bits": bits.model_dump(mode="json"),
        "provenance": dict(provenance),
    } | _table_of_schemes(unet, layers)
    if calibrated_at is not None:
        facts["calibrated_at"] = list(calibrated_at)
    facts["sha256"] = digest(tensors, facts)
    with writing(path) as partial:
        save_file(tensors, partial, {"edadm": compact_json(facts)})


def _table_of_schemes(unet: nn.Module, layers: Mapping[str, QuantizedLayer]) -> Facts:
    """The schemes of all sites, and the shapes of the weights for who unpacks their codes."""
    table = to_table(site_schemes(unet))
    for name, layer in layers.items():
        table["sites"][f"{name}.weight"].append(list(layer.weight.shape))
    return table
