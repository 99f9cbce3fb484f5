"""U-Nets that are given an image behind the noise, to be changed as a text says (arXiv 2211.09800)."""

from __future__ import annotations

from edadm.networks.unet.inpainting import Edited


class InstructPix2Pix(Edited):
    """The image is the latents of the one to change, which its autoencoder's scale does not touch."""

    name = "instruct_pix2pix"


FAMILY = InstructPix2Pix()
