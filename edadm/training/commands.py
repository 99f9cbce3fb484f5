"""`edadm train ...`: how the bundled weights are made again from a folder of images."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edadm.artifacts import writing
from edadm.artifacts.failures import file_place

app = typer.Typer(
    no_args_is_help=True,
    help="Train the bundled networks: the DDPM, the latent model, the classifier that scores (one GPU).",
)

Images = Annotated[Path, typer.Option(help="training images, a sub-folder per class")]
Output = Annotated[Path, typer.Option(callback=file_place, help="the .safetensors file to write")]
Seed = Annotated[int, typer.Option(help="seed of initialisation and batches")]
Steps = Annotated[int, typer.Option(min=1)]
BatchSize = Annotated[int, typer.Option(min=1)]
Minutes = Annotated[
    float | None, typer.Option(help="choose the number of steps so that training takes this long")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(callback=file_place, help="a .ckpt to write as well, as Lightning would, with averages"),
]
Prompts = Annotated[
    Path | None,
    typer.Option(callback=file_place, help="a text file to write prompts to, as images are asked for"),
]
Tokenizer = Annotated[
    Path | None, typer.Option(help="a folder to write the tokenizer of its words to, as CLIPTokenizer's")
]
FirstStage = Annotated[
    Path | None, typer.Option(help="a file that this command wrote, whose first stage is taken")
]
Preset = Annotated[
    str,
    typer.Option(help="the model preset whose architecture is trained; cifar10_latent_text is told prompts"),
]
_GUIDANCES = [1.0, 1.5, 3.0]
_PROMPTS = 10_000  # as many as a thorough evaluation makes images


@app.command("classifier")
def classifier(
    images: Images,
    test_images: Annotated[Path, typer.Option(help="held-out images, a sub-folder per class")],
    output: Output,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    seed: Seed = 0,
    device: str = "auto",
) -> None:
    """Train the feature extractor and write it in fp16 with its test accuracy in the metadata."""
    import torch
    from safetensors.torch import save_file

    from edadm.devices.lease import leased_device
    from edadm.networks.classifier import CifarClassifier
    from edadm.training.classifier import ClassifierTraining, accuracy, train_classifier
    from edadm.training.images import read_image_folder

    torch.manual_seed(seed)
    where = leased_device(device)
    (pixels, labels, _), (test_pixels, test_labels, _) = (
        read_image_folder(images),
        read_image_folder(test_images),
    )
    model = CifarClassifier().to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = ClassifierTraining(epochs=epochs, seed=seed)
    train_classifier(
        model,
        pixels.to(where),
        labels.to(where),
        settings,
        lambda e, loss: typer.echo(f"epoch {e} loss {loss:.4f}"),
    )
    model = model.half().float()
    score = accuracy(model, test_pixels.to(where), test_labels.to(where))
    typer.echo(f"test accuracy {score:.4f}")
    facts = {"test_accuracy": score, "epochs": epochs, "seed": seed, "training_images": len(pixels)}
    state = {
        name: t.half().contiguous() if t.is_floating_point() else t
        for name, t in model.cpu().state_dict().items()
    }
    with writing(output) as partial:
        save_file(state, partial, {"edadm": json.dumps(facts)})


@app.command("diffusion")
def diffusion(
    images: Images,
    output: Output,
    state: Annotated[Path, typer.Option(callback=file_place, help="where to keep what is needed to go on")],
    model: Annotated[
        str, typer.Option(help="the model preset whose architecture is trained")
    ] = "cifar10_small",
    steps: Steps = 100_000,
    batch_size: BatchSize = 512,
    learning_rate: float = 1e-3,
    seed: Seed = 0,
    minutes: Minutes = None,
    device: str = "auto",
) -> None:
    """Train a DDPM and write the average of its weights in fp16 in the ermongroup/ddim layout."""
    import torch

    from edadm.config.load import load_config
    from edadm.devices.lease import leased_device
    from edadm.networks.build import build_network
    from edadm.sampling.schedule import alphas_cumprod
    from edadm.training.diffusion import DiffusionTrainer
    from edadm.training.files import in_ddim_layout, write_weights
    from edadm.training.images import read_image_folder
    from edadm.training.trainer import Training, train

    preset = load_config().models[model]
    _refuse_other_predictions(model, preset.prediction)
    settings = Training(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    where = leased_device(device)
    pixels = read_image_folder(images)[0].to(where)
    unet = build_network(preset.architecture)
    trainer = DiffusionTrainer(
        unet, pixels, alphas_cumprod(preset.schedule), settings, compiled=where.type == "cuda"
    )
    if state.exists():
        trainer.resume(state)

    def write() -> None:
        trainer.save(state)
        facts = asdict(trainer.settings) | {"step": trainer.step}
        write_weights(in_ddim_layout(trainer.average), output, facts)

    train(trainer, minutes, typer.echo, on_step=lambda step: write() if step % 5000 == 0 else None)
    write()


@app.command("latent")
def latent(
    images: Images,
    output: Output,
    checkpoint: Checkpoint = None,
    prompts: Prompts = None,
    tokenizer: Tokenizer = None,
    first_stage: FirstStage = None,
    model: Preset = "cifar10_latent",
    steps: Steps = 100_000,
    batch_size: BatchSize = 512,
    learning_rate: float = 1e-3,
    first_steps: Annotated[int, typer.Option(min=1, help="steps of the first stage")] = 10_000,
    first_batch_size: Annotated[int, typer.Option(min=1, help="batch size of the first stage")] = 256,
    seed: Seed = 0,
    minutes: Minutes = None,
    first_minutes: Annotated[float | None, typer.Option(help="of these, the first stage's")] = None,
    shown: Annotated[
        int, typer.Option(min=0, help="images whose classes and colours are looked at in the end")
    ] = 2000,
    guidance: Annotated[
        list[float], typer.Option(min=1, help="scale by which these are guided")
    ] = _GUIDANCES,
    device: str = "auto",
) -> None:
    """Train a latent model that is told classes or prompts, and write it in fp16 in CompVis' layout."""
    import torch

    from edadm.config.load import load_config
    from edadm.devices.lease import leased_device
    from edadm.training.files import first_stage_in, write_lightning, write_weights
    from edadm.training.images import read_image_folder
    from edadm.training.latent.model import LatentModel
    from edadm.training.trainer import Training

    preset = load_config().models[model]
    _refuse_other_predictions(model, preset.prediction)
    known = first_stage_in(first_stage) if first_stage else None
    begin = time.monotonic()
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    where = leased_device(device)
    pixels, labels, names = read_image_folder(images)
    work = LatentModel(preset, pixels.to(where), labels.to(where), names, typer.echo)
    if prompts:
        with writing(prompts) as partial:
            partial.write_text("\n".join([*work.prompts(_PROMPTS), ""]))
    if tokenizer:
        work.write_tokenizer(tokenizer)
    work.train_first_stage(
        Training(first_steps, first_batch_size, learning_rate, seed=seed), first_minutes, known
    )
    left = None if minutes is None else max(minutes - (time.monotonic() - begin) / 60, 0.1)
    settings = Training(steps, batch_size, learning_rate, seed=seed)
    work.train_unet(settings, left, lambda state, facts: write_weights(state, output, facts))
    if checkpoint:
        write_lightning(*work.checkpoint(), checkpoint)
    if shown:
        for scale, found in work.shown(guidance, shown).items():
            colours = "" if found.colours is None else f", {found.colours:.2%} of the colour"
            said = f"{found.classes:.2%} of {shown} images are of the class asked for{colours}"
            typer.echo(f"guidance {scale:g}: {said}")


def _refuse_other_predictions(model: str, prediction: str) -> None:
    from edadm.errors import EdadmError

    if prediction != "eps":
        raise EdadmError(f"this trains networks that predict eps; the model '{model}' predicts {prediction}")
