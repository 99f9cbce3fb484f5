# What all rules share: the validated configuration, the code of each stage, and who needs which file.
import inspect
import json
import os
import sys
import time

from edadm.artifacts.locks import attempt, holder, opened, rewrite
from edadm.config.fingerprint import content_digest, gpu_code, images_digest, noted_in, stage_fingerprint
from edadm.config.backends import (
    DEFAULT,
    INTEGER,
    computes_on,
    makers_of_images,
    modules_of,
    variant_suffixes,
)
from edadm.config.inputs.arguments import in_file
from edadm.config.layout import Layout, Variant
from edadm.config.inputs.settings import read_settings
from edadm.config.load import load_runs
from edadm.config.schema import AUTO, Reconstruction
from edadm.config.seeds import first_seeds, without_seeds
from edadm.config.sharding.scored import holding, jobs_for, part_of
from edadm.config.sharding.shares import shares
from edadm.console import say
from edadm.config.rules.places import find_inputs
from edadm.config.files.scoring import KEPT_FEATURES, NEED_FEATURES, extractor_weights, paired_of
from edadm.config.files.sources import BUNDLED, locate
from edadm.errors import EdadmError
from edadm.stages import benchmark as benchmark_stage
from edadm.stages import collect as collect_stage
from edadm.stages import convert as convert_stage
from edadm.stages import generate as generate_stage
from edadm.stages import reconstruct as reconstruct_stage
from edadm.stages import set_ranges as set_ranges_stage
from edadm.warm import starting
from pathlib import Path

from snakemake.io import IOFile


def typed(value):
    """What `--config KEY={...}` says, with the types of YAML; Snakemake leaves all inside the braces text."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    try:
        number = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return number if isinstance(number, int | float | None) else value


update_config(config, typed(dict(workflow.config_settings.config)))

try:
    for file in workflow.configfiles:
        read_settings(Path(file))  # Snakemake takes keys that stand twice
    CONFIG = load_runs(config)
    INPUTS = find_inputs(CONFIG)
except EdadmError as error:
    say(str(error))
    sys.exit(1)

NOTES = Path(".snakemake/edadm")  # digests of code and of large files, each computed once
noted_in(str(NOTES))

SOURCES, PROMPTS, SCORING = INPUTS.sources, INPUTS.prompts, INPUTS.scoring
RESULTS = os.path.normpath(CONFIG.results)
LAYOUT = Layout(Path(RESULTS))
RUNS = {run.model: run for run in CONFIG.runs}

# Snakemake deletes outputs before it makes them again, so of one model there is one run at a time. The lock ends with its process.
LOCKS = {model: LAYOUT.root / model / ".run.lock" for model in RUNS}
LAST_RUNS = {model: lock.read_text() if lock.is_file() else "" for model, lock in LOCKS.items()}
HELD = []


onstart:
    check_gpus()
    for model, lock in LOCKS.items():
        try:
            HELD.append(opened(lock))
        except EdadmError as error:
            say(str(error))
            sys.exit(2)
        free = attempt(HELD[-1])  # None where the file system has no locks
        last = HELD[-1].read()
        if free is False:
            say(
                f"{last.partition(',')[0]} is running the workflow of {model} in {RESULTS}; wait for it to end, or kill it, and start again"
            )
            sys.exit(2)
        if last != LAST_RUNS[model]:
            say(f"another run of {model} in {RESULTS} went on while this one was planned; start again")
            sys.exit(2)
        rewrite(HELD[-1], f"{holder()}, {time.time_ns()}")
        SPLITS[model].keep()
    if here() and not workflow.deployment_settings.deployment_method:
        starting.start()  # a process of which jobs are forks (docs/workflow.md)


# Where memory is taken from changes no result: commands read it from the environment, no parameter holds it, and it reruns nothing.
for tier, limit in CONFIG.memory:
    os.environ[f"EDADM_{tier.upper()}_MEMORY"] = "" if limit is None else str(limit)

# Jobs need not compute again what was noted here, nor compile kernels that an earlier job compiled. Both folders take jobs
# that write at once.
os.environ.update(EDADM_NOTES=str(NOTES.absolute()))
for compiler, folder in (
    ("TRITON_CACHE_DIR", "triton"),
    ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
    ("EDADM_CACHE", "edadm"),
):
    os.environ.setdefault(compiler, str((LAYOUT.root / ".kernels" / folder).absolute()))

# Rules call `python3`: the one that runs Snakemake, unless a conda environment brings its own.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
)


wildcard_constraints:
    model="[^/]+",
    calibration="[^/]+",
    bits="[^/]+",
    reconstruction="[^/]+",
    shard="[0-9]+",
    share="[0-9]+",
    jobs="[0-9]+",
    evaluation="[^/]+",
    part="autoencoder|condition",
    variant=f"fp32|[^/]+/[^/]+/[^/]+(?:/(?:{'|'.join(variant_suffixes())}))?",


def as_json(preset, *fields):
    """A preset for a command line, or some of its fields."""
    return json.dumps(preset.model_dump(mode="json", by_alias=True, include=set(fields) or None))


def digest(path):
    """What a file or folder holds; None without one."""
    return path and content_digest(Path(path), NOTES / "contents.json")


def signed(function):
    """Keeps the signature of a function, at which Snakemake looks several times a job: thousands of times a plan."""
    function.__signature__ = inspect.signature(function)
    return function


def for_each(*names):
    """Calls a function of wildcards once for each value of these; Snakemake asks for every shard, thousands of times."""

    def mark(function):
        known = {}

        def value(wildcards, **given):
            key = tuple(wildcards[name] for name in names)
            if key not in known:
                known[key] = function(wildcards, **given)
            return known[key]

        value.__signature__ = inspect.signature(function)  # which Snakemake looks at several times a job
        return value

    return mark


def by_file(arguments):
    """Arguments of a command that may be too many for a command line, as one: a file that holds them, whatever plans or runs the job."""
    return in_file(arguments, NOTES / "arguments")


def growing(amount):
    """MB that a job asks for: of a queue once, twice, three times as much when it is tried again.

    Of this machine a number: what is a function takes Snakemake as long to plan as all else of a job.
    """
    if not provided("_nodes"):
        return amount

    @signed
    def asked(wildcards, attempt):
        return attempt * (amount(wildcards) if callable(amount) else amount)

    return asked


def lasting(minutes):
    """Minutes that a job asks for, which grow likewise, but to no more than the profile lets a job have: a queue keeps longer ones waiting for ever."""
    if not provided("_nodes"):
        return minutes

    @signed
    def asked(wildcards, attempt):
        return min(attempt * minutes, max(minutes, provided("max_runtime") or minutes))

    return asked


# Snakemake compares the parameters of a rule with those of its last run, but for functions that take `input` or `output`. So each rule
# has two: what a command is told, paths among it, which is not compared; and what changes its result, files by what they hold.


def model_with(*fields):
    """What a command is told of the model."""
    return lambda wildcards, input: as_json(CONFIG.models[wildcards.model], "checkpoint", *fields)


def model_settings(*fields):
    """What of the model a result depends on; settings a rule does not name do not rerun it."""

    def settings(wildcards):
        dump = json.loads(as_json(CONFIG.models[wildcards.model], *fields))
        for name in ("autoencoder", "conditioning"):
            without_paths(dump.get(name))
        return json.dumps(dump)

    return settings


def without_paths(preset):
    """Takes from a preset, if there is one, where its files are."""
    for name in (
        "checkpoint",
        "source",
        "extractor_weights",
        "reference",
        "fallback_reference",
        "prompts",
        "image_folder",
        "clip_weights",
        "vgg_weights",
        "lpips_weights",
        "dists_weights",
    ):
        (preset or {}).pop(name, None)


def checkpoint_content(wildcards):
    """What a part is made from holds, wherever it lies: its own file or folder, and the model's, where the scale of latents may stand."""
    files = SOURCES[wildcards.model]
    return [digest(path) for path in dict.fromkeys([files[wildcards.get("part", "unet")], files["unet"]])]


def prompts_content(wildcards):
    """What the file of the model's prompts holds, if it takes any, and the images beside them."""
    images = INPUTS.images[wildcards.model]
    return (
        digest(PROMPTS[wildcards.model])
        if not images
        else [digest(path) for path in (PROMPTS[wildcards.model], *images)]
    )


def evaluation_with(*fields):
    """What a command is told of the evaluation."""
    return lambda wildcards, input: as_json(evaluation_of(wildcards), *fields)


def evaluation_settings(*fields):
    """What of the evaluation a result depends on."""
    return lambda wildcards: as_json(evaluation_of(wildcards), *fields)


def preset_of(kind, wildcard):
    """The settings named by a wildcard, as JSON, for `params`."""
    return lambda wildcards: as_json(getattr(CONFIG, kind)[wildcards[wildcard]])


def reconstruction_with(wildcards, input):
    """What a command is told of the reconstruction: a share says itself of how many it is."""
    jobs = int(wildcards.get("jobs", 0)) or max(1, len(input.units))
    return as_json(CONFIG.reconstructions[wildcards.reconstruction].model_copy(update={"jobs": jobs}))


def reconstruction_settings(wildcards):
    """What of the reconstruction a result depends on: not on how many jobs share the units."""
    return as_json(
        CONFIG.reconstructions[wildcards.reconstruction], *(set(Reconstruction.model_fields) - {"jobs"})
    )


def label_of(stage, *wildcard_names):
    """What progress lines call a job."""
    return signed(lambda wildcards, output: " ".join([stage, *(wildcards[name] for name in wildcard_names)]))


def reconstruct_progress(wildcards):
    """Where `reconstruct` keeps finished units until its outputs are complete."""
    return f"{RESULTS}/{wildcards.model}/{wildcards.calibration}/{wildcards.bits}/.{wildcards.reconstruction}.progress"


def reconstruct_memory(wildcards):
    """MB for the process, and for what it may keep in host memory."""
    return 8000 if CONFIG.memory.host is None else 4000 + int(CONFIG.memory.host * 1074)


def finished_units(wildcards):
    """Units that other jobs learned: none, unless the preset divides them among several.

    A finished checkpoint keeps those it was put together from, so that another number of jobs reruns nothing.
    """
    folder = LAYOUT.root / wildcards.model / wildcards.calibration / wildcards.bits / wildcards.reconstruction
    jobs = shares_of(folder) if (folder / "quantized.safetensors").exists() else None
    kept = jobs is not None
    jobs = CONFIG.reconstructions[wildcards.reconstruction].jobs if jobs is None else jobs
    units = [folder / "units" / f"{share}_of_{jobs}" for share in range(jobs)] if jobs > 1 else []
    return [str(unit) for unit in units] if not kept or all(unit.exists() for unit in units) else []


def shares_of(folder):
    """Among how many jobs the units of a finished checkpoint were divided, as far as is known; None where its settings are others now."""
    try:
        with open(folder / "quantized.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        made = json.loads(header["__metadata__"]["edadm"])["provenance"]["reconstruction"]
    except (OSError, ValueError, KeyError, TypeError, MemoryError):
        return None
    now = CONFIG.reconstructions[folder.name].model_dump(mode="json")
    return made.get("jobs") if made | {"jobs": None} == now | {"jobs": None} else None


def evaluation_of(wildcards):
    """How the images of a model are made and scored; those of a variant in how many shards."""
    whole = CONFIG.evaluations[RUNS[wildcards.model].evaluation]
    return IMAGES.get((wildcards.model, wildcards.get("variant")), whole)


def images_of(model, variant):
    """The files with the images of a variant, in order."""
    return [str(file) for file in LAYOUT.samples(model, variant, IMAGES[model, variant.name].shards)]


def trajectory_shards(wildcards):
    """All recorded runs of a model."""
    shards = CONFIG.models[wildcards.model].trajectories.shards
    return [str(LAYOUT.trajectories(wildcards.model, shard)) for shard in range(shards)]


def model_part(part):
    """The file with a part of the model other than its U-Net, if it has that part."""
    return lambda wildcards: (
        [str(LAYOUT.part(wildcards.model, part))] if part in CONFIG.models[wildcards.model].parts else []
    )


def part_options(*parts):
    """Options for the parts of the model that a stage has among its inputs."""
    return lambda wildcards, input: [f"--{part}={file}" for part in parts for file in input[part]]


@for_each("model", "variant")
def generate_inputs(wildcards):
    """The files a variant's images are generated with: weights of the U-Net, and the model's other parts if it has them."""
    parts = [file for part in ("autoencoder", "condition") for file in model_part(part)(wildcards)]
    return [str(LAYOUT.weights(wildcards.model, Variant(wildcards.variant))), *parts]


@for_each("model", "variant")
def variant_options(wildcards, input):
    """What `generate` is told of a variant, whatever the shard, in few words: Snakemake quotes each three times a job."""
    weights, *parts = input
    model = model_with(*generate_stage.MODEL)(wildcards, input)
    evaluation = as_json(evaluation_of(wildcards), *generate_stage.EVALUATION)
    told = [f"--model={model}", f"--evaluation={evaluation}", f"--weights={weights}"]
    told += [f"--{Path(part).stem}={part}" for part in parts]
    return [*told, f"--backend={Variant(wildcards.variant).backend}"]


@for_each("model", "variant")
def generate_settings(wildcards):
    """What the images of a variant depend on; the code of a backend concerns only those who compute with it."""
    backend = Variant(wildcards.variant).backend
    settings = [model_settings(*generate_stage.MODEL)(wildcards), prompts_content(wildcards)]
    settings += [as_json(evaluation_of(wildcards), *generate_stage.EVALUATION), backend]
    code = stage_fingerprint("generate", also=modules_of(backend))
    return json.dumps([*settings, code])


@for_each("model", "variant")
def variant_samples(wildcards):
    """All images of a variant."""
    return images_of(wildcards.model, Variant(wildcards.variant))


@for_each("model", "variant")
def reference_samples(wildcards):
    """The full-precision images that a quantized variant's are compared with."""
    if not Variant(wildcards.variant).is_quantized:
        return []
    return images_of(wildcards.model, Variant("fp32"))


def code_of_gpus(stage, artifact, also=lambda wildcards: ()):
    """The code of a stage that only GPUs run, as far as it concerns what the rule made before."""

    @signed
    def code(wildcards):
        path = artifact.format(**dict(wildcards.items()))
        noted = workflow.persistence.params(IOFile(path)) if os.path.exists(path) else None
        return gpu_code(stage, Path(path), noted, also=also(wildcards))

    return code


@for_each("variant")
def generate_modules(wildcards):
    """The modules of a variant's backend, which concern only those who compute with it."""
    return modules_of(Variant(wildcards.variant).backend)


def timed_backends(model):
    """The backends of a model's variants that `benchmark unet`, which times them on a CPU, does not time anyway."""
    always = {DEFAULT, *(entry.name for entry in makers_of_images(INTEGER)), INTEGER}
    named = dict.fromkeys(Variant(name).backend for name in RUNS[model].variants)
    return [name for name in named if name not in always and computes_on(name, "cpu")]


def timed_modules(wildcards):
    """The modules of the backends that `benchmark unet` times."""
    return modules_of(INTEGER, *timed_backends(wildcards.model))


def timed_code(wildcards):
    """The code of what `benchmark unet` times."""
    return stage_fingerprint("benchmark", also=timed_modules(wildcards))


@for_each("model", "variant")
def simulated_samples(wildcards):
    """The simulated images that a variant's of another backend are compared with, if the run makes both."""
    variant, run = Variant(wildcards.variant), RUNS[wildcards.model]
    if variant.checkpoint == variant or variant.checkpoint.name not in run.variants:
        return []
    return images_of(wildcards.model, variant.checkpoint)


def scoring_content(wildcards):
    """What an evaluation is scored with: which networks, and what their weights, the statistics and the prompts of a user hold."""
    settings, files = evaluation_of(wildcards), SCORING[RUNS[wildcards.model].evaluation]
    weights = extractor_weights(settings, files)
    reference = None if files.real_images else files.reference
    prompts = settings.prompts and Path(settings.prompts).expanduser() if files.clip_weights else None
    held = [
        digest(path) for path in (weights, files.clip_weights, reference, prompts, *files.perceptual.values())
    ]
    return json.dumps([files.extractor, files.instead_of, files.preparation, *held])


@for_each("model")
def extraction_settings(wildcards):
    """What the features of images depend on: the networks that see them, by what their weights hold; not which scores are computed of them."""
    settings, files = evaluation_of(wildcards), SCORING[RUNS[wildcards.model].evaluation]
    weights = extractor_weights(settings, files)
    prompts = settings.prompts and Path(settings.prompts).expanduser() if files.clip_weights else None
    clip = settings.clip_model if files.clip_weights else None
    held = [digest(path) for path in (weights, files.clip_weights, prompts, *files.perceptual.values())]
    return json.dumps(
        [
            weights is not None,
            paired_of(settings),
            files.extractor,
            files.preparation,
            clip,
            settings.images,
            settings.scored_at_once,
            *held,
        ]
    )


def variant_features(wildcards):
    """What jobs find of the parts of a variant's images; none where `evaluate` looks at all of them."""
    folder = LAYOUT.variant(wildcards.model, Variant(wildcards.variant)) / "features"
    jobs = jobs_for(evaluation_of(wildcards))
    return [str(folder / f"{job}_of_{jobs}.safetensors") for job in range(jobs)] if jobs > 1 else []


def of_part(files):
    """The files that hold the images of one job, of those of all shards."""

    @for_each("model", "variant", "share", "jobs")
    def held(wildcards):
        named = files(wildcards)
        whole = evaluation_of(wildcards)
        part = part_of(whole.images, int(wildcards.jobs), int(wildcards.share))
        divided = shares(whole.model_copy(update={"shards": len(named)})) if named else []
        return [named[number] for number in holding(part, divided)]

    return held


def scored_prompts(wildcards):
    """The prompts that images are compared with where they are those the model is given, written once for all variants."""
    if SCORING[RUNS[wildcards.model].evaluation].clip_weights is None or evaluation_of(wildcards).prompts:
        return []
    return [str(LAYOUT.prompts(wildcards.model))]


def prompts_given(wildcards, input):
    """The file of the prompts that images are compared with, if they are."""
    settings, files = evaluation_of(wildcards), SCORING[RUNS[wildcards.model].evaluation]
    own = [Path(settings.prompts).expanduser()] if settings.prompts and files.clip_weights else []
    return [*input.prompts, *own]


@for_each("model", "variant")
def extract_options(wildcards, input):
    """All images of a variant, and those they are compared with, each as the option of `extract-features` for it."""
    named = {
        "reference": reference_samples(wildcards),
        "simulated": simulated_samples(wildcards),
        "prompts": prompts_given(wildcards, input),
    }
    return by_file([*variant_samples(wildcards), *as_options(named)])


def as_options(named):
    """Files by the option that names each."""
    return [f"--{option}={file}" for option, files in named.items() for file in files]


def evaluate_options(wildcards, input):
    """Images, and the files they are compared with, each as the option of `evaluate` for it."""
    files = SCORING[RUNS[wildcards.model].evaluation]
    given = (
        None
        if files.reference is None or files.real_images or files.reference.parent == BUNDLED
        else files.reference
    )
    named = {
        "reference": input.references,
        "simulated": input.simulated,
        "features": input.features,
        "statistics": [*input.statistics, *([given] if given else [])],
        "prompts": prompts_given(wildcards, input),
    }
    return by_file([*input.samples, *as_options(named)])


def reference_statistics_of(wildcards):
    """Statistics of real images to be made once from a folder for all variants, if they are compared with a folder."""
    name = RUNS[wildcards.model].evaluation
    return [f"{RESULTS}/references/{name}.h5"] if SCORING[name].real_images else []


@for_each("evaluation")
def reference_settings(wildcards):
    """How real images become features, and what these images and the weights for that hold."""
    files = SCORING[wildcards.evaluation]
    weights = extractor_weights(CONFIG.evaluations[wildcards.evaluation], files)
    held = [digest(weights), images_digest(files.reference, NOTES)]
    return json.dumps([files.extractor, files.preparation, kept_features(wildcards), *held])


def kept_features(wildcards):
    """Real images whose features are kept, for scores that compare with them one by one."""
    return KEPT_FEATURES if NEED_FEATURES & set(CONFIG.evaluations[wildcards.evaluation].scores) else 0


def reference_options(wildcards, input):
    """Options of `reference-statistics` that say how real images become features."""
    files = SCORING[wildcards.evaluation]
    weights = [f"--weights={files.weights}"] if files.weights else []
    side = [] if files.resolution is None else [f"--resolution={files.resolution}"]
    told = [f"--extractor={files.extractor}", f"--keep-features={kept_features(wildcards)}"]
    return [*told, f"--crop={files.crop}", *side, *weights]


def evaluate_memory(wildcards):
    """MB for the features of all images, or of a job's: Inception's are 5,079 numbers an image, and are there twice for a moment."""
    images = evaluation_of(wildcards).images // int(wildcards.get("jobs", 1))
    return 4000 + (images * 5079 * 12 // 10**6 if SCORING[RUNS[wildcards.model].evaluation].weights else 0)


def checkpoints_of(model):
    """The variants of a model that are timed: those that have weights of their own, of several seeds the first."""
    return list(dict.fromkeys(Variant(name).checkpoint for name in first_seeds(RUNS[model].variants)))


def model_weights(wildcards):
    """The weights of all variants of a model."""
    return [str(LAYOUT.weights(wildcards.model, variant)) for variant in checkpoints_of(wildcards.model)]


def named_weights(wildcards, input):
    """VARIANT=FILE for all variants of a model."""
    named = zip(checkpoints_of(wildcards.model), input.weights)
    return by_file([f"{variant.name}={file}" for variant, file in named])


def reported(paths):
    """The configuration as the report needs it: presets that runs use, with or without the places of files."""
    variants = [
        Variant(name).presets
        for run in CONFIG.runs
        for name in first_seeds(run.variants)
        if Variant(name).is_quantized
    ]
    used = {"models": set(RUNS), "evaluations": {run.evaluation for run in CONFIG.runs}}
    used |= {
        kind: {names[at] for names in variants}
        for at, kind in enumerate(("calibrations", "bits", "reconstructions"))
    }
    dump = json.loads(without_seeds(CONFIG).model_dump_json(by_alias=True, exclude={"memory"}))
    dump |= {kind: {name: dump[kind][name] for name in sorted(names)} for kind, names in used.items()}
    if not paths:
        for preset in (preset for kind in ("models", "evaluations") for preset in dump[kind].values()):
            for settings in (preset, preset.get("autoencoder"), preset.get("conditioning")):
                without_paths(settings)
    return json.dumps(dump)


def report_inputs(wildcards):
    """Everything the report shows."""
    files = []
    for run in CONFIG.runs:
        files.append(LAYOUT.root / run.model / "speed.json")
        for name in run.variants:
            variant = Variant(name)
            files.append(LAYOUT.variant(run.model, variant) / "metrics.json")
            files += images_of(run.model, variant)
            if variant.is_quantized:
                files.append(LAYOUT.losses(run.model, variant))
                files.append(LAYOUT.calibration(run.model, variant.presets[0]) / "selection.json")
                files += filter(Path.exists, [LAYOUT.step_errors(run.model, variant)])  # no rule makes it
    return [str(file) for file in dict.fromkeys(files)]
