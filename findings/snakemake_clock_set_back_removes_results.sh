#!/usr/bin/env bash
# FINDING: after the clock was set back, Snakemake removes what a job has just made, since its input is "newer"; and only where that
# input is large: of small inputs the checksum counts, and a newer date alone reruns nothing.
# Seen with: snakemake==9.27.1 (Python 3.11.7), 2026-11-30.
# Guess before running: a job whose input is dated ahead is run again each time until the clock has caught up; its output stays.
# Seen: with an input of 3 MB dated an hour ahead the job runs, its output is touched by Snakemake, found to be older than the input,
# and removed ("could indicate a clock skew problem ... Removing output files of failed job"); the same command fails again and again.
# With an input of 3 bytes nothing is run.
# Matters because: hours of a finished job are lost to a clock that was corrected by a minute. Stages of edadm date inputs now that are
# dated ahead (`edadm/artifacts/clock.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "snakemake==9.27.1"
cd "$folder"
cat > Snakefile << 'SNAKE'
rule all:
    input: "small.made", "large.made"
rule made:
    input: "{size}"
    output: "{size}.made"
    shell: "cp {input} {output}"
SNAKE
printf 'abc' > small
head -c 3000000 /dev/zero > large
snakemake() { "$folder/venv/bin/python" -m snakemake --cores 1 "$@" > said 2>&1; }
snakemake
touch -d "1 hour" small large
if snakemake; then echo "CHANGED: the job with an input dated ahead ended well" && exit 1; fi
grep -E "older modification time|Removing output|^large.made" said
for size in small large; do
    if [ -e $size.made ]; then echo "$size.made is there"; else echo "$size.made is gone"; fi
done
test -e small.made
test ! -e large.made
grep -q "reason: Updated input files: large" said
if grep -q "Updated input files: small" said; then echo "CHANGED: a newer date of a small input reruns its job" && exit 1; fi
