"""Where there is no GPU, Triton kernels are interpreted; Triton reads that when it is imported, and diffusers imports it."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
