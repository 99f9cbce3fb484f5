#!/usr/bin/env bash
# FINDING: Snakemake starts a job that asks for more of a resource than `--resources` allows, with less than it asked for, and says nothing.
# Seen with: snakemake==9.27.1 (Python 3.11), 2026-11-30.
# Guess before running: a job that asks for 2 GPUs where there is 1, or none, is refused ("Job needs gpu=2 but only gpu=1 are available" is
#   among Snakemake's messages) or never starts.
# Seen: the request is cut to the limit, down to 0, and the job runs; without a limit it gets what it asked for. Output:
#     no limit: the job runs with gpu=2
#     gpu=1: the job runs with gpu=1
#     gpu=0: the job runs with gpu=0
# Matters because: a job written for two GPUs runs on one, and with `--resources gpu=0` jobs that want a GPU are not held back. edadm uses it:
#   a rule asks for a GPU, and what is left of that decides between GPU and CPU (workflow/rules/devices.smk).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "snakemake==9.27.1"
cd "$folder"
export XDG_CACHE_HOME="$folder/cache"
printf 'rule all:\n    output: "made.txt"\n    resources: gpu=2\n    shell: "echo {resources.gpu} > {output}"\n' > Snakefile
expect() { # WANTED OPTIONS...: runs the job and looks with how many GPUs
    rm -rf .snakemake made.txt
    "$folder/venv/bin/snakemake" -q -c1 "${@:2}" > log 2>&1
    echo "${3:-no limit}: the job runs with gpu=$(cat made.txt)"
    test "$(cat made.txt)" = "$1"
}
expect 2
expect 1 --resources gpu=1
expect 0 --resources gpu=0
