# Where jobs compute, which the profile decides (docs/gpus.md).
import functools

from edadm.devices.listed import refuse_several_kinds, visible_gpus


def provided(resource):
    """What the profile lets all jobs together have of a resource; None without a word."""
    return getattr(found := workflow.global_resources.get(resource), "value", found)


# On this machine a job takes a GPU of its own, and waits for one if it must; as many jobs start as there are GPUs, or places on them:
# Snakemake cuts what a job asks for to what there is. A cluster hands out its own: there `gpu` is how many the queue's jobs have at once.
ASKED, SHARE = provided("gpu"), provided("gpu_share") or 1
try:
    GPUS = [] if workflow.remote_exec else visible_gpus()
except EdadmError as error:
    say(str(error))
    sys.exit(1)


@functools.cache
def here():
    """Whether jobs run on this machine. Snakemake knows that when it plans them, and not yet when it reads the rules.

    A dry run is always here; one for a cluster has a number of jobs in the queue.
    """
    if workflow.remote_exec or not workflow.local_exec or (workflow.dryrun and provided("_nodes")):
        return False
    workflow.global_resources["gpu"] = SHARE * min(len(GPUS) if ASKED is None else ASKED, len(GPUS))
    return True


def a_gpu(wildcards):
    """How many GPUs a job with a network asks for: one, if the profile lets jobs have any, or says nothing and they run here."""
    return 1 if ASKED or (ASKED is None and here()) else 0


def evaluate_gpu(wildcards):
    """How many GPUs scores ask for: none where other jobs have looked at the images."""
    return 0 if variant_features(wildcards) else a_gpu(wildcards)


def check_gpus():
    """Ends the run where something needs a GPU and there is none; else says which there are."""
    variants = [Variant(name) for run in CONFIG.runs for name in run.variants]
    needy = [variant.name for variant in variants if not computes_on(variant.backend, "cpu")]
    if here() and not GPUS and (ASKED or needy):
        who, mend = "the profile asks for one", "take resources: gpu out of it, or use the profile default"
        if needy:
            who, mend = f"'{needy[0]}' needs one", "take it off the variants"
        say(
            f"there is no GPU here that `nvidia-smi -L` lists and CUDA_VISIBLE_DEVICES allows, and {who}; {mend}"
        )
        sys.exit(2)
    if here() and GPUS:
        try:
            refuse_several_kinds(GPUS)
        except EdadmError as error:
            say(str(error))
            sys.exit(2)
        say(f"GPUs: {', '.join(map(str, GPUS))}; jobs on each at once: {SHARE}")


def device_of(wildcards, input, resources):
    """The device of a job: the one that the profile names, else a GPU if the job has one, else the CPU.

    Where the profile says nothing of GPUs, one that torch cannot use is none. Where none is listed, the command itself looks for one of
    another make, unless the profile says that there is to be none.
    """
    if named := resources.get("device"):
        return named
    if not resources.gpu:
        return "auto" if here() and not GPUS and ASKED is None else "cpu"
    kind = "auto" if here() and ASKED is None else "cuda"
    return f"{kind}/{SHARE}" if SHARE > 1 else kind


@for_each("variant")
def generate_gpu(wildcards):
    """How many GPUs the images of a variant ask for."""
    return a_gpu(wildcards) if generated_on_gpus(wildcards) else 0


@for_each("variant")
def generated_on_gpus(wildcards):
    """Whether a variant's images can be made on a GPU."""
    return computes_on(Variant(wildcards.variant).backend, "cuda")


@signed
def generate_options(wildcards, input, resources):
    """What a job of `generate` is told, as one parameter, since each takes Snakemake its time for every shard: of its variant, where it computes, and what progress lines call it.

    Some backends make images on the CPU only.
    """
    device = device_of(wildcards, input, resources) if generated_on_gpus(wildcards) else "cpu"
    label = " ".join(("generate", wildcards.model, wildcards.variant, wildcards.shard))
    return [*variant_options(wildcards, input=input), f"--device={device}", f"--label={label}"]
