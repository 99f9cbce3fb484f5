"""`edadm train ...`: how the bundled weights are made again from a folder of images."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edadm.artifacts import writing

app = typer.Typer(
    no_args_is_help=True, help="Train the bundled DDPM and the classifier that scores it (one GPU)."
)

Images = Annotated[Path, typer.Option(help="training images, a sub-folder per class")]
Output = Annotated[Path, typer.Option(help="the .safetensors file to write")]
Seed = Annotated[int, typer.Option(help="seed of initialisation and batches")]


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
    state: Annotated[Path, typer.Option(help="where to keep what is needed to go on")],
    model: Annotated[
        str, typer.Option(help="the model preset whose architecture is trained")
    ] = "cifar10_small",
    steps: Annotated[int, typer.Option(min=1)] = 100_000,
    batch_size: Annotated[int, typer.Option(min=1)] = 512,
    learning_rate: float = 1e-3,
    seed: Seed = 0,
    minutes: Annotated[
        float | None, typer.Option(help="choose the number of steps so that training takes this long")
    ] = None,
    device: str = "auto",
) -> None:
    """Train a DDPM and write the average of its weights in fp16 in the ermongroup/ddim layout."""
    import torch

    from edadm.config.load import load_config
    from edadm.devices.lease import leased_device
    from edadm.errors import EdadmError
    from edadm.networks.unet.build import build_unet
    from edadm.sampling.schedule import alphas_cumprod
    from edadm.training.diffusion import DiffusionTrainer, DiffusionTraining
    from edadm.training.images import read_image_folder

    preset = load_config().models[model]
    if preset.prediction != "eps":
        raise EdadmError(
            f"this trains networks that predict eps; the model '{model}' predicts {preset.prediction}"
        )
    settings = DiffusionTraining(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    where = leased_device(device)
    pixels = read_image_folder(images)[0].to(where)
    unet = build_unet(preset.architecture)
    trainer = DiffusionTrainer(
        unet, pixels, alphas_cumprod(preset.schedule), settings, compiled=where.type == "cuda"
    )
    if state.exists():
        trainer.resume(state)
    losses, begin, first = [], time.monotonic(), None
    while trainer.step < trainer.settings.steps:
        losses.append(trainer.train_step())
        if trainer.step % 500 == 0 or trainer.step == trainer.settings.steps:
            recent, losses, now = torch.stack(losses).mean().item(), [], time.monotonic()
            first = first or (trainer.step, now)  # the steps before include compilation
            rate = (trainer.step - first[0]) / max(now - first[1], 1e-9)
            typer.echo(
                f"step {trainer.step} of {trainer.settings.steps} loss {recent:.5f} steps/s {rate:.1f} after "
                f"{now - begin:.0f} s"
            )
            if minutes and trainer.step > first[0]:
                trainer.fit_into(first[0] + int(rate * (60 * minutes - (first[1] - begin))))
        if trainer.step % 5000 == 0:
            trainer.save(state)
            _write_original_layout(trainer.average, output, asdict(trainer.settings) | {"step": trainer.step})
    trainer.save(state)
    _write_original_layout(trainer.average, output, asdict(trainer.settings) | {"step": trainer.step})


def _write_original_layout(state: dict, output: Path, facts: dict) -> None:
    from safetensors.torch import save_file

    from edadm.networks.layouts.ermongroup import from_diffusers

    layout = from_diffusers({name: tensor.cpu().half() for name, tensor in state.items()})
    ready = {name: tensor.contiguous() for name, tensor in layout.items()}
    with writing(output) as partial:
        save_file(ready, partial, {"edadm": json.dumps(facts)})
