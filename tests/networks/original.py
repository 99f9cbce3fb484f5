"""The U-Net of ermongroup/ddim, restated from its description (method, 1.1, and its key layout)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.networks.settings.architecture import Architecture


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def sinusoids(t: Tensor, size: int) -> Tensor:
    half = size // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        h = h + self.temb_proj(swish(temb))[:, :, None, None]
        h = self.conv2(swish(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Attention(nn.Module):
    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        for name in ("q", "k", "v", "proj_out"):
            setattr(self, name, nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        h = self.norm(x)
        q, k, v = (projection(h).reshape(n, c, height * width) for projection in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) * c**-0.5, dim=2)
        return x + self.proj_out(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape))


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class OriginalUNet(nn.Module):
    """State dict keys as in `model-790000.ckpt`."""

    def __init__(self, a: Architecture):
        super().__init__()
        widths, groups, embedding = [a.channels * m for m in a.multipliers], a.norm_groups, 4 * a.channels
        self.channels, self.levels, self.blocks = a.channels, len(widths), a.blocks_per_level
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(a.channels, embedding), nn.Linear(embedding, embedding)])
        self.conv_in = nn.Conv2d(a.in_channels, a.channels, 3, padding=1)
        self.down, self.up, self.mid = nn.ModuleList(), nn.ModuleList(), nn.Module()
        skips, current, resolution = [a.channels], a.channels, a.image_size
        for level, width in enumerate(widths):
            stage = nn.Module()
            stage.block, stage.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(self.blocks):
                stage.block.append(Block(current, width, embedding, groups))
                current = width
                skips.append(current)
                if resolution in a.attention_resolutions:
                    stage.attn.append(Attention(current, groups))
            if level < self.levels - 1:
                stage.downsample = Down(current)
                skips.append(current)
                resolution //= 2
            self.down.append(stage)
        self.mid.block_1 = Block(current, current, embedding, groups)
        self.mid.attn_1 = Attention(current, groups)
        self.mid.block_2 = Block(current, current, embedding, groups)
        stages = []
        for level in reversed(range(self.levels)):
            stage = nn.Module()
            stage.block, stage.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(self.blocks + 1):
                stage.block.append(Block(current + skips.pop(), widths[level], embedding, groups))
                current = widths[level]
                if resolution in a.attention_resolutions:
                    stage.attn.append(Attention(current, groups))
            if level > 0:
                stage.upsample = Up(current)
                resolution *= 2
            stages.append(stage)
        self.up.extend(reversed(stages))
        self.norm_out = nn.GroupNorm(groups, current, eps=1e-6)
        self.conv_out = nn.Conv2d(current, a.in_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        temb = self.temb.dense[1](swish(self.temb.dense[0](sinusoids(t, self.channels))))
        hidden = [self.conv_in(x)]
        for level, stage in enumerate(self.down):
            for index, block in enumerate(stage.block):
                h = block(hidden[-1], temb)
                hidden.append(stage.attn[index](h) if len(stage.attn) else h)
            if level < self.levels - 1:
                hidden.append(stage.downsample(hidden[-1]))
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(hidden[-1], temb)), temb)
        for level in reversed(range(self.levels)):
            stage = self.up[level]
            for index, block in enumerate(stage.block):
                h = block(torch.cat([h, hidden.pop()], dim=1), temb)
                h = stage.attn[index](h) if len(stage.attn) else h
            h = stage.upsample(h) if level > 0 else h
        return self.conv_out(swish(self.norm_out(h)))
