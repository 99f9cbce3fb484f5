"""The whole workflow, wherever the package is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from edadm.artifacts.failures import folder_place
from edadm.commands.app import app
from edadm.commands.options import ConfigOption
from edadm.console import say
from edadm.errors import EdadmError
from edadm.turnkey.known import RECIPES

PROJECT = Path(__file__).parents[1] / "project"
OWN = Path("config.yaml")
_UNPARSED = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


class PassingOn(TyperCommand):
    """A command that passes `--` on with the rest of what it does not know.

    The parser would drop the first one.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the options."""
        at = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:at], *args[at : at + 1], *args[at:]])


@app.command("run", cls=PassingOn, context_settings=_UNPARSED)
def run_workflow(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [SNAKEMAKE OPTIONS]", help="a configuration file, then what Snakemake is told"
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="default, gpu, slurm or kubernetes, or the folder of one")
    ] = "default",
) -> None:
    """Run the workflow in this folder.

    Of CONFIG, or config.yaml here, or, where there is none, the main job that comes with the package.

    All else goes to Snakemake, e.g. -n for a dry run or --cores 2; its exit status is that of this command.
    """
    given = list(arguments or ())
    config = Path(given.pop(0)) if given and not given[0].startswith("-") else None
    _refuse_another(given)
    options = snakemake_options(config, profile)
    if (read := config or OWN).is_file():
        from edadm.config.inputs.settings import read_settings

        read_settings(read)  # before Snakemake does, whose words for a broken file are a traceback
    command = [sys.executable, "-m", "snakemake", *options, *given]
    os.execv(sys.executable, command)  # signals and the exit status are Snakemake's own


@app.command()
def quantize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PIPELINE",
            help="a diffusers folder, a file of weights, or cifar10_small, cifar10_latent, "
            "cifar10_latent_text",
        ),
    ],
    recipe: Annotated[str, typer.Option(help=f"bits and what is learned: {', '.join(RECIPES)}")] = "w8a8",
    output: Annotated[
        Path | None,
        typer.Option(callback=folder_place, help="the folder to write; else NAME-quantized in this folder"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, help="that are compared with full precision; else by the network's size"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="of the sampler; else as the pipeline says")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="a text file, a prompt a line; else prompts that come with edadm")
    ] = None,
    images_from: Annotated[
        Path | None, typer.Option(help="a folder of images, for networks that change, fill or refine images")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="the training's own configuration, where a file of weights needs one")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:1 for the second GPU")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print plan and configuration; write nothing")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="whether the plan estimates the time, by a short probe")
    ] = True,
) -> None:
    """Quantize a checkpoint by one command: describe it, plan, run the workflow, and say where all is.

    PIPELINE is read only. Stopped, it goes on when it is started again; another recipe, with the same folder,
    reuses what it can.
    """
    from edadm.turnkey.job import job_of
    from edadm.turnkey.project import Wishes

    wishes = Wishes(recipe, images, steps, prompts, images_from)
    job = job_of(source, wishes, output, config, device)
    project = job.project
    if dry_run or not project.is_made:
        for line in job.plan(probe):
            say(line)
    if dry_run:
        typer.echo(project.text, nl=False)
        return
    project.write()
    say(f"works in {project.folder}; stop it when you like, and start it again to go on")
    typer.echo("\n".join(job.run(lambda file: snakemake_options(file, "default"))))


def _refuse_another(given: list[str]) -> None:
    """Refuses a configuration among what Snakemake is told, which would take the other's place.

    Raises:
        EdadmError: says where it stands instead.
    """
    own = given[: given.index("--")] if "--" in given else given
    named = next(
        (word for word in own if word.startswith("--configfile") or word.endswith((".yaml", ".yml"))), None
    )
    if named is not None:
        raise EdadmError(
            f"{named}: edadm run takes one configuration, and takes it first; write `edadm run CONFIG`, and "
            "then what Snakemake is told"
        )


def snakemake_options(config: Path | None, profile: str) -> list[str]:
    """Where the workflow, its profile and its configuration are.

    Raises:
        EdadmError: there is no such configuration or profile.
    """
    if config is not None and not config.is_file():
        raise EdadmError(
            f"there is no configuration file {config}; name one as `edadm run CONFIG`, or leave it out"
        )
    if config is None and not OWN.is_file():
        say(
            f"there is no {OWN} here, so this runs the main job of the package; `edadm run CONFIG` runs yours"
        )
        config = PROJECT / OWN
    own = [] if config is None else ["--configfile", str(config)]
    if config is not None and OWN.is_file():
        own.append("--replace-workflow-config")  # or Snakemake would put CONFIG on top of config.yaml
    return ["--snakefile", str(PROJECT / "Snakefile"), "--workflow-profile", str(_profile(profile)), *own]


def _profile(name: str) -> Path:
    """A profile of the package, or a folder with one."""
    folder = PROJECT / "workflow" / "profiles" / name
    own = Path(name).expanduser()
    if (folder / "config.yaml").is_file():
        return folder
    if any(file.is_file() for file in own.glob("config*.yaml")):
        return own
    known = ", ".join(sorted(entry.name for entry in folder.parent.iterdir()))
    raise EdadmError(f"there is no profile '{name}'; use {known}, or the folder of one")


@app.command()
def adopt(
    results: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="the results folder")],
    config: ConfigOption = None,
) -> None:
    """Take over results of edadm 0.1.0 that mean the same today, so that Snakemake keeps them.

    Says what it will take over, and why not the rest.

    Start it where Snakemake was started, with the configuration that made them.
    """
    from edadm.adoption.checks import verdicts
    from edadm.adoption.records import snakemake

    options = options_of(results, config)
    taken: list[str] = []
    for job, reason in verdicts(*options):
        if reason:
            say(f"made again: {job.outputs[0]}: {reason}")
        else:
            taken += job.outputs
    if taken:
        snakemake(*options, "--touch", "--cores", "1", "--", *taken)
    for output in taken:
        say(f"taken over: {output}")
    say(f"{len(taken)} files are taken over; `snakemake -n` says what is left")


def options_of(results: Path, config: Path | None) -> list[str]:
    """What Snakemake is told of a configuration whose results lie in a folder, of which it has records here.

    Raises:
        EdadmError: they lie elsewhere, or there are no records.
    """
    from edadm.adoption.records import RECORDS
    from edadm.config.load import load_config

    settings = load_config(config or (OWN if OWN.is_file() else PROJECT / OWN))
    if Path(settings.results).resolve() != results.resolve():
        raise EdadmError(
            f"the configuration's results are in {settings.results}, not in {results}; give its file with "
            "--config"
        )
    if not (RECORDS / "metadata").is_dir():
        raise EdadmError(
            "there is no .snakemake here with records of what was made; start this in the folder where "
            "snakemake was started"
        )
    return snakemake_options(config, "default")
