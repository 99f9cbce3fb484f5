# EDA-DM as a pipeline: what to run stands in config.yaml, how to run it in workflow/profiles.
import gc
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from edadm.config.inputs.settings import read_settings
from edadm.console import say
from edadm.errors import EdadmError

min_version("9.0")
gc.set_threshold(
    1_000_000, 50, 100
)  # thousands of jobs are kept until the end: to look for garbage among them is a tenth of a plan's time

try:
    if Path("config.yaml").exists():
        read_settings(
            Path("config.yaml")
        )  # before Snakemake does, whose words for a broken file are a traceback
except EdadmError as error:
    say(str(error))
    sys.exit(1)


configfile: "config.yaml"


CONTAINER = os.environ.get(
    "EDADM_CONTAINER"
)  # for `--software-deployment-method apptainer` (docs/environments.md)

if CONTAINER:

    container: CONTAINER


include: "workflow/rules/common.smk"
include: "workflow/rules/devices.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/quantization.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report/index.html",
