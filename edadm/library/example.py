"""The network that comes with the package, to try things with."""

from __future__ import annotations

from diffusers.models.unets.unet_2d import UNet2DModel

from edadm.config.load import find_preset
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint


def example_unet() -> UNet2DModel:
    """The bundled CIFAR-10 network (4.6 M parameters, `edadm/bundled/cifar10_small.md`), in full precision.

    Plain diffusers, in inference mode. Its images are 32 x 32 pixels; a linear schedule of 1,000 steps.
    """
    model = find_preset("models", "cifar10_small")
    unet = UNet2DModel.from_config(build_network(model.architecture).config)
    unet.load_state_dict(convert_checkpoint(model))
    return unet.eval()
