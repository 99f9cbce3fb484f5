# How many jobs make trajectories and images where the preset leaves that to the machine (docs/workflow.md).
from edadm.config.sharding.shares import refuse_undecided, settled
from edadm.config.sharding.split import Division, Split, shards_for


def jobs_at_once(backend):
    """How many jobs can run at once: one for each place in a queue, or here for each place on a GPU, or for each core.

    Told while rules are read, when Snakemake does not know its executor yet; only those of clusters have a number of jobs.
    """
    on_gpus = computes_on(backend, "cuda")
    if queued := provided("_nodes"):
        return min(queued, ASKED) if on_gpus and ASKED else queued
    gpus = SHARE * min(len(GPUS) if ASKED is None else ASKED, len(GPUS)) if on_gpus else 0
    found = gpus or provided("_cores")
    return found if isinstance(found, int) else 1


# The number is noted beside results. Where these lie in a store, jobs elsewhere see no note, and planning no shards that are there.
if workflow.is_main_process and provided("_nodes") and workflow.storage_settings.default_storage_provider:
    try:
        refuse_undecided(CONFIG)
    except EdadmError as error:
        say(str(error))
        sys.exit(1)

# How many jobs share trajectories or images is decided once, before the work on them begins, and noted for jobs elsewhere.
SPLITS = {
    model: Split(LAYOUT.root / model / ".shards.json", decides=workflow.is_main_process) for model in RUNS
}


def split_trajectories(model):
    """The model, with a number of shards."""
    preset = CONFIG.models[model]
    if model not in SPLITS or preset.trajectories.shards != AUTO:
        return preset
    recorded = preset.trajectories
    wanted = shards_for(jobs_at_once(DEFAULT), recorded.count, recorded.batch_size, preset.sampler.steps)
    folder = LAYOUT.trajectories(model, 0).parent
    division = Division(wanted, recorded.count, recorded.batch_size)
    return settled(preset, SPLITS[model].shards("trajectories", folder, "model", division))


def split_images(model, variant):
    """How the images of a variant are made, with a number of shards."""
    evaluation = CONFIG.evaluations[RUNS[model].evaluation]
    if evaluation.shards != AUTO:
        return evaluation
    jobs, steps = (
        jobs_at_once(Variant(variant).backend),
        CONFIG.models[model].sampler.steps,
    )
    wanted = shards_for(jobs, evaluation.images, evaluation.batch_size, steps)
    folder = LAYOUT.variant(model, Variant(variant)) / "samples"
    division = Division(wanted, evaluation.images, evaluation.batch_size)
    return settled(evaluation, SPLITS[model].shards(variant, folder, "evaluation", division))


CONFIG = CONFIG.model_copy(
    update={"models": CONFIG.models | {model: split_trajectories(model) for model in RUNS}}
)
# Full precision is what variants are compared with, also where it is not among them.
IMAGES = {
    (run.model, variant): split_images(run.model, variant)
    for run in CONFIG.runs
    for variant in dict.fromkeys(("fp32", *run.variants))
}
