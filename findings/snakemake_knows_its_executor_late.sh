#!/usr/bin/env bash
# FINDING: while Snakemake reads the rules of a run that will submit its jobs to a cluster, `workflow.local_exec` is True: the executor is
# known only when jobs are planned. Whatever a Snakefile decides by it at its top level is decided for this machine.
# Seen with: snakemake==9.27.1, snakemake-executor-plugin-cluster-generic==1.0.9 (Python 3.11.7), 2026-11-30.
# Guess before running: with `--executor cluster-generic` it is False from the first line, since the option is on the command line.
# Seen: "while rules are read: here", then "when jobs are planned: elsewhere".
# Matters because: a workflow that limits GPUs to those of its own machine limits a cluster's jobs to those of the login node, none, without
# a word: Snakemake cuts what a job asks for (snakemake_gives_less_than_asked.sh), and Slurm is asked for no GPU. edadm did that for some
# hours; it asks in the functions of resources and parameters now (`workflow/rules/devices.smk`), which are called when jobs are planned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "snakemake==9.27.1" "snakemake-executor-plugin-cluster-generic==1.0.9"
cd "$folder"
cat > Snakefile << 'SNAKE'
def note(when):
    if workflow.remote_exec:  # the job itself, which runs here
        return
    with open("notes", "a") as notes:
        notes.write(f"{when}: {'here' if workflow.local_exec else 'elsewhere'}\n")
def asked(wildcards):
    note("when jobs are planned")
    return 1
note("while rules are read")
rule made:
    output: "out"
    resources: places=asked
    shell: "touch {output}"
SNAKE
printf '#!/bin/sh\nsh "$1" > job.log 2>&1\necho 1\n' > submit
chmod +x submit
"$folder/venv/bin/python" -m snakemake --executor cluster-generic --cluster-generic-submit-cmd "$folder/submit" --jobs 1 out > said 2>&1 || cat said
test -e out
sort -u notes
grep -q "^while rules are read: here$" notes
grep -q "^when jobs are planned: elsewhere$" notes
if grep -q "^while rules are read: elsewhere$" notes; then echo "CHANGED: the executor is known while rules are read" && exit 1; fi
