"""Where there is no GPU, Triton kernels are interpreted; Triton reads that when it is imported, and diffusers imports it."""

import os

import torch

if torch.cuda.is_available():
    os.environ.setdefault(
        "EDADM_GPU", "a GPU of the tests"
    )  # no leases: several processes of tests may be on one
else:
    os.environ["TRITON_INTERPRET"] = "1"
