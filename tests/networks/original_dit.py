"""DiT in a few lines, with the names of its original code: what both layouts are to compute."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.networks.settings.architecture import Architecture

NUMBERS = 256  # of a timestep, before it is embedded
LOWEST = 1 / 10_000  # frequency


def frequencies(last: int) -> Tensor:
    """From 1 downwards; the number after the `last` would have the lowest one."""
    return torch.exp(math.log(LOWEST) * torch.arange(NUMBERS // 2) / last)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(told)[:, None].chunk(
            6, dim=2
        )
        x = x + gate * self.attn(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        inner = F.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * self.mlp["fc2"](F.gelu(self.mlp["fc1"](inner), approximate="tanh"))


class OriginalDit(nn.Module):
    """A transformer with the original names, of which the embedding of places is none of the state."""

    def __init__(self, sizes: Architecture, last: int):
        super().__init__()
        width, patch, heads = sizes.channels, sizes.patch or 1, sizes.heads or 1
        self.sizes, self.last = sizes, last
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(sizes.in_channels, width, patch, patch)})
        first, second = nn.Linear(NUMBERS, width), nn.Linear(width, width)
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(first, nn.SiLU(), second)})
        table = nn.Embedding((sizes.classes or 0) + 1, width)
        self.y_embedder = nn.ModuleDict({"embedding_table": table})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(sizes.blocks or 0))
        self.final_layer = nn.ModuleDict(
            {
                "linear": nn.Linear(width, patch**2 * (sizes.out_channels or sizes.in_channels)),
                "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width)),
            }
        )

    def places(self) -> Tensor:
        """Sines and cosines of a patch's column, then of its row."""
        side, quarter = self.sizes.image_size // (self.sizes.patch or 1), self.sizes.channels // 4
        angles = torch.arange(side)[:, None] * LOWEST ** (torch.arange(quarter) / quarter)
        each = torch.cat([angles.sin(), angles.cos()], dim=1)
        columns, rows = each[None].expand(side, -1, -1), each[:, None].expand(-1, side, -1)
        return torch.cat([columns, rows], dim=2).reshape(1, side * side, -1)

    def forward(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        angles = timesteps[:, None] * frequencies(self.last)
        told = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=1))
        told = told + self.y_embedder["embedding_table"](labels)
        x = self.x_embedder["proj"](latents).flatten(2).transpose(1, 2) + self.places()
        for block in self.blocks:
            x = block(x, told)
        shift, scale = self.final_layer["adaLN_modulation"](told)[:, None].chunk(2, dim=2)
        x = self.final_layer["linear"](F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        patch, side = self.sizes.patch or 1, self.sizes.image_size // (self.sizes.patch or 1)
        images = x.reshape(len(x), side, side, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
        return images.reshape(len(x), -1, self.sizes.image_size, self.sizes.image_size)
