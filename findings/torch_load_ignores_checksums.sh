#!/usr/bin/env bash
# FINDING: torch.load takes a file with a flipped bit in its weights without a word, although the file holds a checksum of every record.
# Seen with: torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: torch.save writes a zip archive with CRC-32 of each record, so torch.load compares them, as every zip reader does.
# Seen: it reads [3.015625, 3.0] where [3.0, 3.0] was saved, mapped into memory or not; Python's zipfile names the damaged record at once.
# Matters because: a checkpoint damaged on a disk or in a download gives a slightly wrong network, and no reader says so; `testzip()` of
#   Python's standard library does. edadm compares each record with its checksum when it reads the record.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - "$folder/model.pt" <<'PY'
import sys
import zipfile

import torch

path = sys.argv[1]
torch.save({"weight": torch.full((64,), 3.0)}, path)
content = bytearray(open(path, "rb").read())
content[content.index(torch.full((4,), 3.0).numpy().tobytes()) + 2] ^= 1
open(path, "wb").write(content)
read = [torch.load(path, mmap=mapped)["weight"][:2].tolist() for mapped in (False, True)]
damaged = zipfile.ZipFile(path).testzip()
print("saved [3.0, 3.0]; torch.load reads", read, "; zipfile says that", damaged, "is damaged")
assert read == [[3.015625, 3.0]] * 2 and damaged == "model/data/0"
PY
