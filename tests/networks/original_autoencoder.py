"""CompVis' autoencoders and CLIP's text encoder, restated from their description and key layouts to compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edadm.networks.settings.parts import Autoencoder, TextEncoder

from .original import Attention, Down, Up, swish


class Block(nn.Module):
    """As in ermongroup/ddim, without time."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = (
            nn.GroupNorm(groups, inputs, eps=1e-6),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )
        self.norm2, self.conv2 = (
            nn.GroupNorm(groups, outputs, eps=1e-6),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Side(nn.Module):
    """Encoder or decoder."""

    def __init__(self, a: Autoencoder, encodes: bool):
        super().__init__()
        widths, groups = [a.channels * m for m in a.multipliers], a.norm_groups
        outputs = a.latent_channels * (2 if a.kind == "kl" else 1) if encodes else a.image_channels
        current = widths[0] if encodes else widths[-1]
        self.encodes, self.levels = encodes, len(widths)
        self.conv_in = nn.Conv2d(a.image_channels if encodes else a.latent_channels, current, 3, padding=1)
        stages: list[nn.Module] = []
        middle = nn.Module()
        if not encodes:
            self.mid = middle
        for level in range(len(widths)) if encodes else reversed(range(len(widths))):
            stage = nn.Module()
            stage.block, stage.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(a.blocks_per_level + (not encodes)):
                stage.block.append(Block(current, widths[level], groups))
                current = widths[level]
            if encodes and level < len(widths) - 1:
                stage.downsample = Down(current)
            if not encodes and level > 0:
                stage.upsample = Up(current)
            stages.append(stage)
        setattr(self, "down" if encodes else "up", nn.ModuleList(stages if encodes else reversed(stages)))
        self.mid = middle
        deepest = widths[-1]
        middle.block_1, middle.attn_1, middle.block_2 = (
            Block(deepest, deepest, groups),
            Attention(deepest, groups),
            Block(deepest, deepest, groups),
        )
        self.norm_out, self.conv_out = (
            nn.GroupNorm(groups, current, eps=1e-6),
            nn.Conv2d(current, outputs, 3, padding=1),
        )

    def middle(self, h: Tensor) -> Tensor:
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        h = h if self.encodes else self.middle(h)
        for stage in self.down if self.encodes else reversed(self.up):
            for block in stage.block:
                h = block(h)
            for resample in ("downsample", "upsample"):
                h = getattr(stage, resample)(h) if hasattr(stage, resample) else h
        h = self.middle(h) if self.encodes else h
        return self.conv_out(swish(self.norm_out(h)))


class OriginalAutoencoder(nn.Module):
    """State dict keys as behind `first_stage_model.`."""

    def __init__(self, a: Autoencoder):
        super().__init__()
        doubled = 2 if a.kind == "kl" else 1
        self.encoder, self.decoder = Side(a, True), Side(a, False)
        self.quant_conv = nn.Conv2d(doubled * a.latent_channels, doubled * a.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(a.latent_channels, a.latent_channels, 1)
        if a.kind == "vq":
            self.quantize = nn.Module()
            self.quantize.embedding = nn.Embedding(a.codes, a.latent_channels)

    def encode(self, images: Tensor) -> Tensor:
        """Latents, or the mean and logarithmic variance of latents."""
        return self.quant_conv(self.encoder(images))

    def snap(self, latents: Tensor) -> Tensor:
        """The nearest entry of the codebook at every position."""
        book = self.quantize.embedding.weight
        nearest = (latents.permute(0, 2, 3, 1).unsqueeze(-2) - book).square().sum(-1).argmin(-1)
        return book[nearest].permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(
            self.post_quant_conv(self.snap(latents) if hasattr(self, "quantize") else latents)
        )


class ClipLayer(nn.Module):
    def __init__(self, a: TextEncoder):
        super().__init__()
        self.heads = a.heads
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self.self_attn, name, nn.Linear(a.channels, a.channels))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(a.channels), nn.LayerNorm(a.channels)
        self.mlp.fc1, self.mlp.fc2 = (
            nn.Linear(a.channels, a.hidden_channels),
            nn.Linear(a.hidden_channels, a.channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        h, attention = self.layer_norm1(x), self.self_attn
        q, k, v = (
            m(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for m in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        x = x + attention.out_proj(
            (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
        )
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))


class OriginalTextEncoder(nn.Module):
    """State dict keys as behind `cond_stage_model.`."""

    def __init__(self, a: TextEncoder, vocabulary: int = 49408):
        super().__init__()
        self.transformer, text, embeddings, encoder = (nn.Module() for _ in range(4))
        self.transformer.text_model = text
        text.embeddings, text.encoder = embeddings, encoder
        embeddings.register_buffer("position_ids", torch.arange(a.tokens)[None])
        embeddings.token_embedding = nn.Embedding(vocabulary, a.channels)
        embeddings.position_embedding = nn.Embedding(a.tokens, a.channels)
        encoder.layers = nn.ModuleList([ClipLayer(a) for _ in range(a.layers)])
        text.final_layer_norm = nn.LayerNorm(a.channels)

    def forward(self, ids: Tensor) -> Tensor:
        text = self.transformer.text_model
        x = text.embeddings.token_embedding(ids) + text.embeddings.position_embedding.weight[: ids.shape[1]]
        for layer in text.encoder.layers:
            x = layer(x)
        return text.final_layer_norm(x)
