"""One run of `edadm quantize`: what is asked for, checked; its plan; and the workflow that does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edadm.errors import EdadmError
from edadm.turnkey.known import RECIPES
from edadm.turnkey.plan import plan_of
from edadm.turnkey.project import CONFIG, Project, Wishes, project_in
from edadm.turnkey.results import finish, targets_of
from edadm.turnkey.run import environment_for, run_in
from edadm.turnkey.source import source_of


@dataclass(frozen=True)
class Job:
    """A checkpoint that is to be quantized, into a folder, on a device.

    Attributes:
        project: the folder as it is to be.
        variables: of the processes that compute.
        on_gpu: whether they do so on a GPU.
    """

    project: Project
    variables: Mapping[str, str]
    on_gpu: bool

    def plan(self, probe: bool) -> list[str]:
        """What it will cost, as lines; see `plan_of`."""
        return plan_of(self.project, self.on_gpu, probe, self.variables)

    def run(self, options_of: Callable[[Path], Sequence[str]]) -> list[str]:
        """Runs the workflow, as far as it is not done, and returns lines on what it left.

        Args:
            options_of: from the configuration to Snakemake's options.

        Raises:
            EdadmError: a step failed.
            KeyboardInterrupt: it was interrupted or terminated.
        """
        folder = self.project.folder
        options = (*options_of(folder / CONFIG), "--quiet", "all", "--", *targets_of(self.project))
        if run_in(folder, [sys.executable, "-m", "snakemake", *options], self.variables):
            raise EdadmError(
                "a step failed, and says why above; mend that and start again, and it goes on (logs: "
                f"{folder / 'logs'})"
            )
        return finish(self.project)


def job_of(
    source: str, wishes: Wishes, output: Path | None = None, config: Path | None = None, device: str = "auto"
) -> Job:
    """The job that somebody asks for, its input and its folder looked at.

    Args:
        source: a path, or the name of a bundled model.
        wishes: recipe and settings.
        output: the folder; one beside the current one, named after the source, if none is given.
        config: of the training, for a file in an original layout.
        device: see `environment_for`.

    Raises:
        EdadmError: there is no such recipe, device or source, or the folder cannot be used.
    """
    if wishes.recipe not in RECIPES:
        known = "; ".join(f"{name}: {found.description}" for name, found in RECIPES.items())
        raise EdadmError(f"there is no recipe '{wishes.recipe}'; name one of these ({known})")
    variables, on_gpu = environment_for(device)
    found = source_of(source, config)
    project = project_in(output or Path(f"{found.name}-quantized"), found, wishes)
    project.check()
    return Job(project, variables, on_gpu)
