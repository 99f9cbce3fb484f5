"""CompVis' `project.yaml` or `v1-inference.yaml` as an entry under `models:`.

That of latent-diffusion, or of Stable Diffusion 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.config.described.entry import Description
from edadm.networks.settings.reading import DescriptionError, Settings, checked, groups_of, refuse

_NO_OTHER = "use another checkpoint"
# Of the schedule and of sampling, which `_schedule` reads, and what only training needs.
_MODEL_READ = (
    "linear_start", "linear_end", "timesteps", "beta_schedule", "given_betas", "parameterization",
    "cosine_s", "image_size", "channels", "scale_factor", "scale_by_std", "unet_config",
    "first_stage_config", "cond_stage_config", "conditioning_key", "cond_stage_key", "first_stage_key",
    "cond_stage_trainable", "concat_mode", "cond_stage_forward", "num_timesteps_cond", "log_every_t",
    "monitor", "use_ema", "loss_type", "clip_denoised", "scheduler_config", "ckpt_path", "ignore_keys",
    "load_only_unet", "original_elbo_weight", "v_posterior", "l_simple_weight", "learn_logvar",
    "logvar_init", "use_positional_encodings", "base_learning_rate", "log_all_grad_norm",
    "unet_trainable", "ucg_training", "make_it_fit",
)  # fmt: skip
_UNET_READ = (
    "image_size", "in_channels", "out_channels", "model_channels", "attention_resolutions",
    "num_res_blocks", "channel_mult", "num_heads", "num_head_channels", "context_dim",
    "use_spatial_transformer", "use_scale_shift_norm", "resblock_updown", "use_checkpoint", "use_fp16",
    "use_bf16", "dropout", "legacy", "num_heads_upsample",
)  # fmt: skip
_UNET: Settings = {"conv_resample": True, "dims": 2, "transformer_depth": 1}
_UNET_REASONS = {
    "num_classes": "its time embedding adds a class, which no stage here gives to a network",
    "adm_in_channels": "its time embedding adds a vector, which no stage here gives to a network",
    "use_new_attention_order": "attention's weights lie in another order, which is not read here",
}


def training_beside(config: Settings, where: Path) -> tuple[str, Settings] | None:
    """What a network predicts and its noise schedule, of networks that their tensors describe better.

    These are Stable Diffusion 2 and such as are given an image. None for all others.

    Raises:
        DescriptionError: of a training that no sampler here follows; names the setting.
    """
    params = _params(config.get("model"))
    unet = _params(params.get("unet_config"))
    is_second = bool(unet.get("use_linear_in_transformer")) or unet.get("transformer_depth", 1) != 1
    is_edited = params.get("conditioning_key") == "hybrid" and bool(unet.get("use_spatial_transformer"))
    return _training(params, where) if is_second or is_edited else None


def describe_compvis(config: Settings, where: Path, checkpoint: Path) -> Description:
    """What a project's configuration says.

    Raises:
        DescriptionError: of a network that is not built here; names the setting.
    """
    model = config["model"]
    params = _params(model)
    if not str(model.get("target", "LatentDiffusion")).endswith(
        (".LatentDiffusion", ".DDPM", "LatentDiffusion")
    ):
        raise refuse(
            where,
            "model.target",
            model.get("target"),
            f"only LatentDiffusion and DDPM are sampled here; {_NO_OTHER}",
        )
    checked(where, {key: value for key, value in params.items() if key not in _MODEL_READ}, {}, {})
    if params.get("conditioning_key") in ("concat", "hybrid", "adm", "hybrid-adm", "crossattn-adm"):
        raise refuse(
            where,
            "conditioning_key",
            params["conditioning_key"],
            f"only none and crossattn are built here; {_NO_OTHER}",
        )
    unet = _params(params.get("unet_config"))
    settings: Settings = {
        "checkpoint": str(checkpoint),
        "layout": "compvis",
        "architecture": _architecture(unet, params, where),
    }
    left_open: list[str] = []
    settings["architecture"] |= _groups(settings["architecture"], left_open, "architecture")
    left_open += ["ema is not set: averaged weights are taken where the file holds them"]
    if autoencoder := _autoencoder(params, where):
        settings["autoencoder"] = autoencoder | _groups(autoencoder, left_open, "autoencoder")
    if settings["architecture"]["family"] == "transformer":
        settings["conditioning"] = _conditioning(params, where, left_open)
    settings["prediction"], settings["schedule"] = _training(params, where)
    return Description(settings, left_open)


def _groups(sizes: Settings, left_open: list[str], where: str) -> Settings:
    return groups_of(
        [sizes["channels"] * multiplier for multiplier in (1, *sizes["multipliers"])], left_open, where
    )


def _params(config: Any) -> Settings:
    inner = (config or {}).get("params") if isinstance(config, dict) else None
    return inner if isinstance(inner, dict) else {}


def _architecture(unet: Settings, params: Settings, where: Path) -> Settings:
    checked(where, {key: value for key, value in unet.items() if key not in _UNET_READ}, _UNET, _UNET_REASONS)
    for key in ("in_channels", "out_channels", "model_channels", "num_res_blocks", "attention_resolutions"):
        if key not in unet:
            raise DescriptionError(
                f"{where} says no unet_config.params.{key}; complete it, or leave it out to read the tensors "
                "alone"
            )
    if unet["out_channels"] != unet["in_channels"]:
        reason = (
            f"in_channels is {unet['in_channels']}; only networks that predict what they are given are built "
            "here"
        )
        raise refuse(where, "out_channels", unet["out_channels"], reason)
    size = params.get("image_size") or unet.get("image_size")
    multipliers = list(unet.get("channel_mult", (1, 2, 4, 8)))
    across = bool(unet.get("use_spatial_transformer"))
    factors = [
        factor
        for factor in unet["attention_resolutions"]
        if factor in [2**level for level in range(len(multipliers))]
    ]
    settings: Settings = {
        "family": "transformer" if across else "ldm",
        "image_size": size,
        "in_channels": unet["in_channels"],
        "channels": unet["model_channels"],
        "multipliers": multipliers,
        "blocks_per_level": unet["num_res_blocks"],
        "attention_resolutions": [size // factor for factor in sorted(factors)],
    }
    settings |= _heads(unet, where)
    if across:
        context = unet.get("context_dim")
        if not isinstance(context, int):
            raise refuse(
                where,
                "context_dim",
                context,
                f"one context of one width is given to all blocks here; {_NO_OTHER}",
            )
        settings["context_channels"] = context
    for key, name, value in (
        ("use_scale_shift_norm", "scale_shift", True),
        ("resblock_updown", "resample", "res_block"),
    ):
        if unet.get(key):
            if across:
                raise refuse(
                    where, key, True, f"that is not built together with use_spatial_transformer; {_NO_OTHER}"
                )
            settings[name] = value
    return settings


def _heads(unet: Settings, where: Path) -> Settings:
    """A number of channels per head goes before a number of heads, as in CompVis' code."""
    channels, heads = unet.get("num_head_channels", -1), unet.get("num_heads", -1)
    if unet.get("num_heads_upsample", -1) not in (-1, heads):
        raise refuse(
            where,
            "num_heads_upsample",
            unet["num_heads_upsample"],
            f"one number of heads is built here; {_NO_OTHER}",
        )
    if channels != -1:
        return {"head_channels": channels}
    if heads == -1:
        raise DescriptionError(f"{where} says neither num_heads nor num_head_channels; set one of them")
    return {"heads": heads}


def _autoencoder(params: Settings, where: Path) -> Settings | None:
    config = params.get("first_stage_config")
    target = str(config.get("target", "")) if isinstance(config, dict) else str(config or "")
    if not target or target.endswith("IdentityFirstStage"):
        return None
    kind = (
        "vq"
        if target.endswith(("VQModelInterface", "VQModel"))
        else "kl"
        if target.endswith("AutoencoderKL")
        else None
    )
    if kind is None:
        raise refuse(
            where,
            "first_stage_config.target",
            target,
            f"only VQModelInterface and AutoencoderKL are built here; {_NO_OTHER}",
        )
    own = _params(config)
    sizes = own.get("ddconfig") or {}
    latent = sizes.get("z_channels")
    if own.get("embed_dim", latent) != latent:
        raise refuse(
            where, "embed_dim", own["embed_dim"], f"z_channels is {latent}; only equal ones are built here"
        )
    if sizes.get("attn_resolutions"):
        raise refuse(
            where,
            "attn_resolutions",
            sizes["attn_resolutions"],
            f"autoencoders with attention beside the middle are not built here; {_NO_OTHER}",
        )
    if sizes.get("out_ch", 3) != sizes.get("in_channels", 3):
        raise refuse(
            where,
            "out_ch",
            sizes["out_ch"],
            f"in_channels is {sizes.get('in_channels', 3)}; only equal ones are built here",
        )
    settings = {
        "kind": kind,
        "latent_channels": latent,
        "image_channels": sizes.get("in_channels", 3),
        "channels": sizes.get("ch", 128),
        "multipliers": list(sizes.get("ch_mult", (1, 2, 4, 8))),
        "blocks_per_level": sizes.get("num_res_blocks", 2),
    }
    if kind == "vq":
        settings["codes"] = own.get("n_embed", 8192)
    return settings | {
        "scale": None if params.get("scale_by_std") else float(params.get("scale_factor", 1.0))
    }


def _conditioning(params: Settings, where: Path, left_open: list[str]) -> Settings:
    config = params.get("cond_stage_config")
    target = str(config.get("target", "")) if isinstance(config, dict) else str(config or "")
    if target.endswith("ClassEmbedder"):
        rows = _params(config).get("n_classes", 1000)
        left_open.append(f"of the {rows} embeddings the last one is taken for no class, as in cin256-v2")
        left_open.append("conditioning.guidance stands in no file; 3 is that of the published run")
        return {"kind": "classes", "classes": rows - 1, "guidance": 3.0}
    if target.endswith("FrozenCLIPEmbedder"):
        tokens = _params(config).get("max_length", 77)
        left_open.append(
            "conditioning.prompts: set it to your captions (COCO's JSON) or to a text file, a prompt per line"
        )
        left_open.append("conditioning.guidance stands in no file; 7.5 is that of the published run")
        return {"kind": "text", "guidance": 7.5, "prompts": "prompts.txt", "encoder": {"tokens": tokens}}
    reason = f"only ClassEmbedder and FrozenCLIPEmbedder are built here; {_NO_OTHER}"
    raise refuse(where, "cond_stage_config.target", target, reason)


def _training(params: Settings, where: Path) -> tuple[str, Settings]:
    """What the network predicts, and its betas; CompVis calls a linear square root `linear`."""
    kinds = {"linear": "sqrt_linear", "sqrt_linear": "linear", "cosine": "cosine"}
    predictions = {"eps": "eps", "x0": "sample", "v": "v"}
    predicted, name = params.get("parameterization", "eps"), params.get("beta_schedule", "linear")
    if predicted not in predictions:
        raise refuse(
            where, "parameterization", predicted, f"only eps, x0 and v are sampled here; {_NO_OTHER}"
        )
    if params.get("given_betas"):
        betas = list(params["given_betas"])
        return predictions[predicted], {"kind": "trained", "timesteps": len(betas), "betas": betas}
    if name not in kinds:
        raise refuse(where, "beta_schedule", name, f"only {', '.join(kinds)} are sampled here; {_NO_OTHER}")
    schedule: Settings = {"kind": kinds[name], "timesteps": params.get("timesteps", 1000)}
    if name != "cosine":
        schedule |= {
            "start": float(params.get("linear_start", 1e-4)),
            "end": float(params.get("linear_end", 2e-2)),
        }
    return predictions[predicted], schedule
