"""What files are that hold no weights, or not in a form that is read here, by their first bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

_FLOAT = "take the model's own floating-point weights, as safetensors or a PyTorch file"
_UNPACK = "unpack it, and name what is inside"
_AGAIN = "download it again"
_STARTS = (
    (b"GGUF", "a GGUF file (quantized for llama.cpp, stable-diffusion.cpp or ComfyUI-GGUF)", _FLOAT),
    (b"lmgg", "a ggml file (of llama.cpp or stable-diffusion.cpp)", _FLOAT),
    (b"tjgg", "a ggml file (of llama.cpp or stable-diffusion.cpp)", _FLOAT),
    (b"\x89HDF\r\n", "an HDF5 file (of Keras, or statistics of images)", _FLOAT),
    (b"\x93NUMPY", "an array of numpy", _FLOAT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x89PNG", "an image (PNG)", "name the model's file, of which it may be the preview"),
    (b"\xff\xd8\xff", "an image (JPEG)", "name the model's file, of which it may be the preview"),
    (b"RIFF", "an image or a sound (RIFF)", "name the model's file, of which it may be the preview"),
    (b"GIF8", "an image (GIF)", "name the model's file, of which it may be the preview"),
    (b"%PDF", "a PDF document", "name the model's file"),
    (b"\x7fELF", "a program", "name the model's file"),
    (b"MZ", "a program", "name the model's file"),
    (b"ggla", "a ggml LoRA file", _FLOAT),
)
INDEX = "the index of a checkpoint in several files", "name its folder"
_TABLE = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # at the end of the index of a TensorFlow checkpoint


def foreign(path: Path) -> tuple[str, str] | None:
    """What a file is and what its owner can do, if its bytes say that it is no safetensors or PyTorch file.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    is_weights = start[:4] == b"PK\x03\x04" or start[8:9] == b"{" or start[:1] == b"\x80"
    return None if is_weights else _what_bytes_are(path, start, path.stat().st_size)


def _what_bytes_are(path: Path, start: bytes, size: int) -> tuple[str, str] | None:
    if not start:
        return "an empty file", _AGAIN
    if start.startswith((b"version https://git-lfs", b"# xet version")):
        return (
            "a Git-LFS pointer, which stands for the file itself",
            "fetch that with `git lfs pull`, or download it from the web page",
        )
    for magic, what, advice in _STARTS:
        if start.startswith(magic):
            return what, advice
    if start[257:262] == b"ustar":
        return (
            "a tar archive, or a PyTorch file of 2016",
            "unpack it, or write its tensors again as safetensors",
        )
    if _is_onnx(start):
        return "an ONNX graph", "take the weights that it was exported from"
    if _is_msgpack(start):
        return (
            "a Flax file (msgpack)",
            "write it for PyTorch with diffusers: `from_pretrained(..., from_flax=True)`, `save_pretrained`",
        )
    if _is_tensorflow(path, size):
        return "a part of a TensorFlow checkpoint", _FLOAT
    if not any(start):
        return "a file that begins with zeros, as an unfinished download does", _AGAIN
    return _text(path, start)


def _is_onnx(start: bytes) -> bool:
    """A protobuf whose first field is a small version, and whose second is the name of a program."""
    return len(start) > 6 and start[0] == 8 and start[1] < 32 and start[2] in (0x12, 0x1A, 0x3A, 0x42)


def _is_msgpack(start: bytes) -> bool:
    """A map whose first key is a short text."""
    key = {0xDE: 3, 0xDF: 5}.get(start[0], 1)
    is_map = start[0] in (*range(0x81, 0x90), 0xDE, 0xDF)
    return is_map and len(start) > key and 0xA0 <= start[key] < 0xC0


def _is_tensorflow(path: Path, size: int) -> bool:
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return True
    with open(path, "rb") as file:
        file.seek(max(size - len(_TABLE), 0))
        return file.read() == _TABLE


def _text(path: Path, start: bytes) -> tuple[str, str] | None:
    """Web pages, JSON and other texts."""
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # not just a character cut at the end
            return None
        text = start[: error.start].decode("utf-8-sig")
    if any(ord(letter) < 32 and letter not in "\t\n\r\f\x1b" for letter in text):
        return None
    begin = text.lstrip().lower()
    if begin.startswith(("<!doctype", "<html", "<head", "<?xml", "<!--", "<body")):
        return (
            "a web page (of a login, a licence or an error, most likely)",
            f"{_AGAIN}, where you are logged in and its licence is accepted",
        )
    first = " ".join(text.split())[:60].encode("unicode_escape").decode()
    if begin.startswith(("{", "[")):
        return _json(path, first)
    return f"a text ('{first}')", "name the file with the weights"


def _json(path: Path, first: str) -> tuple[str, str]:
    content: object = None
    try:
        if path.stat().st_size < 1 << 24:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        content = None
    keys = set(content) if isinstance(content, dict) else set()
    if "weight_map" in keys:
        return INDEX
    if keys & {"_class_name", "_diffusers_version", "architectures"}:
        return "the configuration of a network or a pipeline, without weights", "name its folder"
    return (
        f"JSON text ('{first}')",
        f"it may be an error's message: {_AGAIN}, or name the file with the weights",
    )
