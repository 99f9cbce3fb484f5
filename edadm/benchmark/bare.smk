# The published runs' jobs as bare rules: files and wildcards as the workflow has them (edadm/config/layout.py), and nothing else.
# Snakemake's own time for these is what no workflow of so many jobs can be below; see edadm/benchmark/dry_run.py.
RUNS = config["runs"]


wildcard_constraints:
    model="[^/]+",
    part="autoencoder|condition",
    shard="[0-9]+",
    variant="fp32|[^/]+/[^/]+/[^/]+(?:/[^/]+)?",


def weights(wildcards):
    """The file a variant's images are generated with; a backend is no part of its name."""
    if wildcards.variant == "fp32":
        return f"{wildcards.model}/fp32/unet.safetensors"
    presets = wildcards.variant.split("/")[:3]
    return "/".join([wildcards.model, *presets, "quantized.safetensors"])


def images(model, *variants):
    """All images of variants."""
    shards = range(config["shards"])
    return [f"{model}/{variant}/samples/{shard}.npy" for variant in variants for shard in shards]


def quantized(model):
    """The variants of a model that have weights of their own other than full precision."""
    return [variant for variant in RUNS[model]["variants"] if variant.count("/") == 2]


rule all:
    input:
        "index.html",


rule report:
    input:
        [f"{model}/speed.json" for model in RUNS],
        [f"{model}/{variant}/metrics.json" for model in RUNS for variant in RUNS[model]["variants"]],
        [file for model in RUNS for file in images(model, *RUNS[model]["variants"])],
    output:
        "index.html",
    shell:
        "touch {output}"


rule convert:
    output:
        "{model}/fp32/unet.safetensors",
    shell:
        "touch {output}"


rule convert_part:
    output:
        "{model}/fp32/{part}.safetensors",
    shell:
        "touch {output}"


rule collect:
    input:
        "{model}/fp32/unet.safetensors",
    output:
        "{model}/trajectories.zarr",
    shell:
        "touch {output}"


rule select:
    input:
        "{model}/trajectories.zarr",
    output:
        "{model}/{calibration}/calibration.safetensors",
    shell:
        "touch {output}"


rule set_ranges:
    input:
        "{model}/{calibration}/calibration.safetensors",
    output:
        "{model}/{calibration}/{bits}/ranges.safetensors",
    shell:
        "touch {output}"


rule reconstruct:
    input:
        "{model}/{calibration}/{bits}/ranges.safetensors",
    output:
        "{model}/{calibration}/{bits}/{reconstruction}/quantized.safetensors",
    shell:
        "touch {output}"


rule generate:
    input:
        weights,
        lambda wildcards: [
            f"{wildcards.model}/fp32/{part}.safetensors" for part in RUNS[wildcards.model]["parts"]
        ],
    output:
        "{model}/{variant}/samples/{shard}.npy",
    shell:
        "touch {output}"


rule evaluate:
    input:
        lambda wildcards: images(wildcards.model, wildcards.variant),
        lambda wildcards: images(wildcards.model, *(["fp32"] if wildcards.variant != "fp32" else [])),
    output:
        "{model}/{variant}/metrics.json",
    shell:
        "touch {output}"


rule speed:
    input:
        lambda wildcards: [
            f"{wildcards.model}/{name}/quantized.safetensors" for name in quantized(wildcards.model)
        ],
    output:
        "{model}/speed.json",
    shell:
        "touch {output}"
