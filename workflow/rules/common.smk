# What all rules share: the validated configuration, the code of each stage, and who needs which file.
import json
import os
import sys

from edadm.config.fingerprint import stage_fingerprint
from edadm.config.layout import INTEGER, Layout, Variant
from edadm.config.inputs.settings import read_settings
from edadm.config.load import load_runs
from edadm.console import say
from edadm.config.rules.places import find_inputs
from edadm.config.scoring import KEPT_FEATURES
from edadm.config.sources import BUNDLED
from edadm.errors import EdadmError
from pathlib import Path

try:
    for file in workflow.configfiles:
        read_settings(Path(file))  # Snakemake takes keys that stand twice
    CONFIG = load_runs(config)
    INPUTS = find_inputs(CONFIG)
except EdadmError as error:
    say(str(error))
    sys.exit(2)

SOURCES, PROMPTS, SCORING = INPUTS.sources, INPUTS.prompts, INPUTS.scoring
RESULTS = os.path.normpath(CONFIG.results)
LAYOUT = Layout(Path(RESULTS))
RUNS = {run.model: run for run in CONFIG.runs}

# Where memory is taken from changes no result: commands read it from the environment, no parameter holds it, and it reruns nothing.
for tier, limit in CONFIG.memory:
    os.environ[f"EDADM_{tier.upper()}_MEMORY"] = "" if limit is None else str(limit)

# Rules call `python3`: the one that runs Snakemake, unless a conda environment brings its own.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))


wildcard_constraints:
    model="[^/]+",
    calibration="[^/]+",
    bits="[^/]+",
    reconstruction="[^/]+",
    shard="[0-9]+",
    share="[0-9]+",
    evaluation="[^/]+",
    part="autoencoder|condition",
    variant="fp32|[^/]+/[^/]+/[^/]+(?:/integer)?",


def as_json(preset, *fields):
    """A preset for a command line, or some of its fields; a changed setting changes the parameters, and so reruns a rule."""
    return json.dumps(preset.model_dump(mode="json", by_alias=True, include=set(fields) or None))


def model_with(*fields):
    """What a rule needs to know of the model; settings it does not see do not rerun it."""
    return lambda wildcards: as_json(CONFIG.models[wildcards.model], "checkpoint", *fields)


def sources_of(model, part):
    """What a part is made from: its own file or folder, and the model's, where the scale of its latents may stand."""
    return list(dict.fromkeys([str(SOURCES[model][part]), str(SOURCES[model]["unet"])]))


def evaluation_with(*fields):
    """What a rule needs to know of the evaluation."""
    return lambda wildcards: as_json(evaluation_of(wildcards), *fields)


def preset_of(kind, wildcard):
    """The settings named by a wildcard, as JSON, for `params`."""
    return lambda wildcards: as_json(getattr(CONFIG, kind)[wildcards[wildcard]])


def reconstruct_progress(wildcards):
    """Where `reconstruct` keeps finished units until its outputs are complete."""
    return f"{RESULTS}/{wildcards.model}/{wildcards.calibration}/{wildcards.bits}/.{wildcards.reconstruction}.progress"


def reconstruct_memory(wildcards):
    """MB for the process, and for what it may keep in host memory."""
    return 8000 if CONFIG.memory.host is None else 4000 + int(CONFIG.memory.host * 1074)


def finished_units(wildcards):
    """Units that other jobs learned: none, unless the preset divides them among several."""
    jobs = CONFIG.reconstructions[wildcards.reconstruction].jobs
    folder = LAYOUT.root / wildcards.model / wildcards.calibration / wildcards.bits / wildcards.reconstruction / "units"
    return [str(folder / str(share)) for share in range(jobs)] if jobs > 1 else []


def evaluation_of(wildcards):
    """How the images of a model are made and scored."""
    return CONFIG.evaluations[RUNS[wildcards.model].evaluation]


def trajectory_shards(wildcards):
    """All recorded runs of a model."""
    shards = CONFIG.models[wildcards.model].trajectories.shards
    return [str(LAYOUT.trajectories(wildcards.model, shard)) for shard in range(shards)]


def model_part(part):
    """The file with a part of the model other than its U-Net, if it has that part."""
    return lambda wildcards: [str(LAYOUT.part(wildcards.model, part))] if part in CONFIG.models[wildcards.model].parts else []


def model_prompts(wildcards):
    """The prompts a model is given, if it takes any."""
    return [str(PROMPTS[wildcards.model])] if PROMPTS[wildcards.model] else []


def part_options(*parts):
    """Options for the parts of the model that a stage has among its inputs."""
    return lambda wildcards, input: [f"--{part}={file}" for part in parts for file in input[part]]


def variant_weights(wildcards):
    """The file a variant's images are generated with."""
    return str(LAYOUT.weights(wildcards.model, Variant(wildcards.variant)))


def variant_samples(wildcards):
    """All images of a variant."""
    shards = evaluation_of(wildcards).shards
    return [str(file) for file in LAYOUT.samples(wildcards.model, Variant(wildcards.variant), shards)]


def reference_samples(wildcards):
    """The full-precision images that a quantized variant's are compared with."""
    if not Variant(wildcards.variant).is_quantized:
        return []
    return [str(file) for file in LAYOUT.samples(wildcards.model, Variant("fp32"), evaluation_of(wildcards).shards)]


def generate_code(wildcards):
    """The code that makes a variant's images; that of integers concerns only those who compute with them."""
    return stage_fingerprint("generate", without="" if Variant(wildcards.variant).backend == INTEGER else "open_integers")


def simulated_samples(wildcards):
    """The simulated images that a variant's made with integers are compared with, if the run makes both."""
    variant, run = Variant(wildcards.variant), RUNS[wildcards.model]
    if variant.checkpoint == variant or variant.checkpoint.name not in run.variants:
        return []
    return [str(file) for file in LAYOUT.samples(wildcards.model, variant.checkpoint, evaluation_of(wildcards).shards)]


def scoring_files(wildcards):
    """Weights of the networks that score images, where they are not the package's."""
    files = SCORING[RUNS[wildcards.model].evaluation]
    return [str(file) for file in (files.weights, files.clip_weights) if file]


def scored_prompts(wildcards):
    """The prompts that images are compared with: a user's file, or those the model is given, written once for all variants."""
    if SCORING[RUNS[wildcards.model].evaluation].clip_weights is None:
        return []
    prompts = evaluation_of(wildcards).prompts
    return [str(Path(prompts).expanduser() if prompts else LAYOUT.prompts(wildcards.model))]


def reference_statistics_of(wildcards):
    """Statistics of real images: a user's file, or one to be made once from a folder for all variants; none if not needed.

    Those of the package are none of these: where it is installed must not matter.
    """
    name = RUNS[wildcards.model].evaluation
    reference = SCORING[name].reference
    if reference is None or reference.parent == BUNDLED:
        return []
    return [f"{RESULTS}/references/{name}.h5" if reference.is_dir() else str(reference)]


def reference_options(wildcards):
    """Options of `reference-statistics` that say how real images become features."""
    files = SCORING[wildcards.evaluation]
    weights = [f"--weights={files.weights}"] if files.weights else []
    keep = (
        [f"--keep-features={KEPT_FEATURES}"] if {"kid", "precision_recall"} & set(CONFIG.evaluations[wildcards.evaluation].scores) else []
    )
    return [f"--extractor={files.extractor}", f"--resolution={files.resolution}", *weights, *keep]


def evaluate_memory(wildcards):
    """MB for the features of all images: Inception's are 5,079 numbers an image, and are there twice for a moment."""
    settings = evaluation_of(wildcards)
    return 4000 + (settings.images * 5079 * 12 // 10**6 if SCORING[RUNS[wildcards.model].evaluation].weights else 0)


def checkpoints_of(model):
    """The variants of a model that have weights of their own; integers share those of simulation."""
    return list(dict.fromkeys(Variant(name).checkpoint for name in RUNS[model].variants))


def model_weights(wildcards):
    """The weights of all variants of a model."""
    return [str(LAYOUT.weights(wildcards.model, variant)) for variant in checkpoints_of(wildcards.model)]


def named_weights(wildcards, input):
    """VARIANT=FILE for all variants of a model."""
    return [f"{variant.name}={file}" for variant, file in zip(checkpoints_of(wildcards.model), input.weights)]


def report_inputs(wildcards):
    """Everything the report shows."""
    files = []
    for run in CONFIG.runs:
        files.append(LAYOUT.root / run.model / "speed.json")
        for name in run.variants:
            variant = Variant(name)
            files.append(LAYOUT.variant(run.model, variant) / "metrics.json")
            files += LAYOUT.samples(run.model, variant, CONFIG.evaluations[run.evaluation].shards)
            if variant.is_quantized:
                files.append(LAYOUT.losses(run.model, variant))
                files.append(LAYOUT.calibration(run.model, variant.presets[0]) / "selection.json")
    return [str(file) for file in dict.fromkeys(files)]
