#!/usr/bin/env bash
# FINDING: Snakemake does not compare a parameter whose function takes `input` (or `output`), so a change in it reruns nothing.
# Seen with: snakemake==9.27.1 (Python 3.11), 2026-11-30.
# Guess before running: every value in `params` is compared with the one recorded for the finished job (`--rerun-triggers params` is a
#   default), however it is computed.
# Seen: a plain value, and a function of `wildcards` alone, rerun the job when they change; the same value from a function of
#   `wildcards, input` reruns nothing, and nothing says so. Output:
#     plain value changed: 1 job
#     function of wildcards changed: 1 job
#     function of wildcards and input changed: nothing to be done
# Matters because: options are often put together from `input` ("--reference=..."), and whoever adds a setting there believes that it is tracked.
#   edadm gives settings to functions of `wildcards` and uses the exception on purpose, to keep mere paths out of what is compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "snakemake==9.27.1"
cd "$folder"
touch given.txt
export XDG_CACHE_HOME="$folder/cache"
expect() { # HOW EXPRESSION WANTED: runs with 1, then asks what 2 would run
    printf 'rule all:\n    input: "given.txt"\n    output: "made.txt"\n    params: value=%s\n    shell: "echo {params.value} > {output}"\n' "$2" > Snakefile
    rm -rf .snakemake made.txt
    VALUE=1 "$folder/venv/bin/snakemake" -q -c1 > log 2>&1
    if VALUE=2 "$folder/venv/bin/snakemake" -n -c1 2>&1 | grep -q "Nothing to be done"; then found="nothing to be done"; else found="1 job"; fi
    echo "$1 changed: $found"
    test "$found" = "$3"
}
value='__import__("os").environ["VALUE"]'
expect "plain value" "$value" "1 job"
expect "function of wildcards" "lambda wildcards: $value" "1 job"
expect "function of wildcards and input" "lambda wildcards, input: $value" "nothing to be done"
