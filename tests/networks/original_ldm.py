"""CompVis' U-Nets, restated from their description (method, 1.1, and the checkpoints' key layout)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.networks.settings.architecture import Architecture


def sinusoids(t: Tensor, size: int) -> Tensor:
    half = size // 2
    angles = t.float()[:, None] * torch.exp(torch.arange(half).float() * (-math.log(10000) / half))[None, :]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """`resize` is 0.5, 1 or 2: averaged pairs, nothing, or nearest neighbours, behind the first activation and on the shortcut."""

    def __init__(self, inputs: int, outputs: int, embedding: int, a: Architecture, resize: float = 1.0):
        super().__init__()
        self.resize, self.film = resize, a.scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(a.norm_groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, 2 * outputs if a.scale_shift else outputs)
        )
        norm, conv = nn.GroupNorm(a.norm_groups, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(norm, nn.SiLU(), nn.Dropout(0.0), conv)
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def resized(self, x: Tensor) -> Tensor:
        if self.resize == 0.5:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resize == 2 else x

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        h = self.in_layers[2](self.resized(self.in_layers[1](self.in_layers[0](x))))
        x = self.resized(x)
        e = self.emb_layers(emb)[:, :, None, None]
        if self.film:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[3](self.out_layers[1](h))
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Heads are split before query, key and value; query and key are each multiplied by d^-1/4."""

    def __init__(self, channels: int, a: Architecture):
        super().__init__()
        self.heads = a.heads or channels // (a.head_channels or channels)
        self.norm = nn.GroupNorm(a.norm_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x).reshape(n, c, -1)).reshape(n * self.heads, 3 * c // self.heads, -1)
        q, k, v = qkv.split(c // self.heads, dim=1)
        scale = (c // self.heads) ** -0.25
        weights = torch.softmax(torch.einsum("nct,ncs->nts", q * scale, k * scale), dim=-1)
        out = torch.einsum("nts,ncs->nct", weights, v).reshape(n, c, -1)
        return x + self.proj_out(out).reshape(n, c, height, width)


class CrossAttention(nn.Module):
    def __init__(self, channels: int, context: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k, self.to_v = (
            nn.Linear(context, channels, bias=False),
            nn.Linear(context, channels, bias=False),
        )
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            m.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for m in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels), nn.Dropout(0.0), nn.Linear(4 * channels, channels))


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, a: Architecture):
        super().__init__()
        heads = a.heads or channels // (a.head_channels or channels)
        self.attn1 = CrossAttention(channels, channels, heads)
        self.ff = FeedForward(channels)
        self.attn2 = CrossAttention(channels, a.context_channels or 1, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff.net(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, a: Architecture):
        super().__init__()
        self.norm = nn.GroupNorm(a.norm_groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, a)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = self.transformer_blocks[0](h.flatten(2).transpose(1, 2), context)
        return x + self.proj_out(tokens.transpose(1, 2).reshape(h.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Stem(nn.Conv2d):
    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        return super().forward(x)


class OriginalLdmUNet(nn.Module):
    """State dict keys as behind `model.diffusion_model.`."""

    def __init__(self, a: Architecture):
        super().__init__()
        embedding, self.channels = 4 * a.channels, a.channels
        attention = SpatialTransformer if a.family == "transformer" else AttentionBlock
        by_block = a.resample == "res_block"
        self.time_embed = nn.Sequential(
            nn.Linear(a.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.input_blocks = nn.ModuleList([nn.ModuleList([Stem(a.in_channels, a.channels, 3, padding=1)])])
        widths, current, size = [a.channels * m for m in a.multipliers], a.channels, a.image_size
        skips = [current]
        for level, width in enumerate(widths):
            for _ in range(a.blocks_per_level):
                layers = [ResBlock(current, width, embedding, a)]
                current = width
                layers += [attention(current, a)] * (size in a.attention_resolutions)
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(current)
            if level < len(widths) - 1:
                self.input_blocks.append(
                    nn.ModuleList(
                        [ResBlock(current, current, embedding, a, 0.5) if by_block else Downsample(current)]
                    )
                )
                skips.append(current)
                size //= 2
        self.middle_block = nn.ModuleList(
            [
                ResBlock(current, current, embedding, a),
                attention(current, a),
                ResBlock(current, current, embedding, a),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for block in range(a.blocks_per_level + 1):
                layers = [ResBlock(current + skips.pop(), widths[level], embedding, a)]
                current = widths[level]
                layers += [attention(current, a)] * (size in a.attention_resolutions)
                if level > 0 and block == a.blocks_per_level:
                    layers += [
                        ResBlock(current, current, embedding, a, 2.0) if by_block else Upsample(current)
                    ]
                    size *= 2
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            nn.GroupNorm(a.norm_groups, current), nn.SiLU(), nn.Conv2d(current, a.in_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        emb = self.time_embed(sinusoids(t, self.channels))
        hidden = []
        for layers in self.input_blocks:
            for layer in layers:
                x = layer(x, emb, context)
            hidden.append(x)
        for layer in self.middle_block:
            x = layer(x, emb, context)
        for layers in self.output_blocks:
            x = torch.cat([x, hidden.pop()], dim=1)
            for layer in layers:
                x = layer(x, emb, context)
        return self.out(x)
