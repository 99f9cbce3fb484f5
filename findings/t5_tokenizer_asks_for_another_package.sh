#!/usr/bin/env bash
# FINDING: transformers 5 reads a folder with T5's spiece.model (as PixArt's pipelines have it, without tokenizer.json) only with sentencepiece and
#   protobuf; where either is missing, the error asks for tiktoken, which does not help.
# Seen with: transformers==5.23.0, sentencepiece==0.2.3, tiktoken==0.14.0, protobuf==7.36.2 (Python 3.11, x86-64), 2026-12-01.
# Guess before running: sentencepiece alone is enough, as the file is its own; or else the error names what is missing.
# Seen: tiktoken is tried last, and its sentence is the one that ends the traceback; once it is installed, it cannot parse the file. Output:
#     sentencepiece alone: ValueError: `tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`.
#     and tiktoken: ValueError: Error parsing line
#     and protobuf: 7 tokens
# Matters because: `from_pretrained` of a whole pipeline fails over a tokenizer that edadm reads from the same file by the package tokenizers alone
#   (edadm/conditions/t5_tokens.py); whoever follows the sentence installs the wrong package.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install -q)
"${pip[@]}" "transformers==5.23.0" "sentencepiece==0.2.3"
"$folder/venv/bin/python" - "$folder" <<'PY'
import io
import sys
from pathlib import Path

import sentencepiece

written = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a picture of two boats", "two pictures of a boat", "a boat"] * 20),
    model_writer=written,
    vocab_size=19,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
)
(Path(sys.argv[1]) / "spiece.model").write_bytes(written.getvalue())
PY
cat > "$folder/seen.py" <<'PY'
import sys

from transformers import T5Tokenizer

try:
    print(f"{sys.argv[2]}: {len(T5Tokenizer.from_pretrained(sys.argv[1])('a boat of').input_ids)} tokens")
except Exception as error:
    print(f"{sys.argv[2]}: {type(error).__name__}: {str(error).split(' b')[0].splitlines()[0]}")
PY
see() { "$folder/venv/bin/python" "$folder/seen.py" "$folder" "$1" 2>/dev/null | tee -a "$folder/said"; }
see "sentencepiece alone"
"${pip[@]}" "tiktoken==0.14.0"
see "and tiktoken"
"${pip[@]}" "protobuf==7.36.2"
see "and protobuf"
grep -q "sentencepiece alone: ValueError: .tiktoken. is required" "$folder/said"
grep -q "and tiktoken: ValueError: Error parsing line" "$folder/said"
grep -q "and protobuf: [0-9]* tokens" "$folder/said"
