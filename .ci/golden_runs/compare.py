"""Compares byte for byte what two packages made of the tiny models: `compare.py OLD NEW`.

Tensors, images, losses and graphs must be equal, and the newer package, which PYTHONPATH names, must read
what the older one wrote. What files say of themselves (the key `edadm` of metadata and JSON, `.made.json`
beside a file) may differ, and is listed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from diffusers import DDIMPipeline
from diffusers.utils import logging

import edadm

KEY = "edadm"
Items = dict[str, Any]


def artifacts(folder: Path) -> dict[str, Path]:
    """All files and stores by their paths in the folder, without locks and what was copied there."""
    stores = sorted(folder.rglob("*.zarr"))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not {*stores} & {*path.parents}]
    found = {path.relative_to(folder): path for path in (*stores, *files)}
    return {str(name): path for name, path in found.items() if len(name.parts) > 1 and path.suffix != ".lock"}


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested JSON with the path to each."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{name}.{key}" if name else key)
    elif isinstance(content, str) and content.startswith("{"):
        yield from leaves(json.loads(content), name)
    else:
        yield name, content


def taken_apart(path: Path) -> tuple[Items, Items]:
    """What must be equal in a file, by name, and what it says of itself."""
    if path.name.endswith((".made.json", "units.json")):  # the latter holds digests of whole files
        return {}, dict(leaves(json.loads(path.read_text())))
    if path.suffix == ".safetensors":
        return tensors(path.read_bytes())
    if path.suffix == ".zarr":
        return stored(path)
    if path.suffix == ".onnx":
        return graph(path)
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        told = content.get("attributes", content).pop(KEY, {})
        return dict(leaves(content)), dict(leaves(told))
    return {"content": path.read_bytes()}, {}


def stored(path: Path) -> tuple[Items, Items]:
    """The arrays of a store as (type, shape, bytes), however they lie in files, and its attributes."""
    group = zarr.open_group(path, mode="r")
    arrays = {name: np.ascontiguousarray(array[...]) for name, array in group.arrays()}
    told = dict(group.attrs)
    told.pop(KEY, None)
    found: Items = {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}
    return found | dict(leaves(told)), dict(leaves(dict(group.attrs).get(KEY, {})))


def tensors(content: bytes) -> tuple[Items, Items]:
    """The tensors of a safetensors file as (type, shape, bytes), and its metadata."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    told = header.pop("__metadata__", {})
    found = {}
    for name, own in header.items():
        found[name] = (own["dtype"], own["shape"], data[slice(*own["data_offsets"])])
    return found, dict(leaves(told))


def graph(path: Path) -> tuple[Items, Items]:
    """How often an ONNX graph computes each of its values, and their names, which programs choose freely.

    A value is known by what it is computed from, whatever the order of nodes that do not need each other.
    """
    import onnx

    content = onnx.load(path).graph
    ends = [*content.input, *content.output]
    known = {"": "none"} | {value.name: digest(value.name) for value in content.input}
    for tensor in content.initializer:
        constant = onnx.numpy_helper.to_array(tensor)
        known[tensor.name] = digest(tensor.data_type, constant.shape, constant.tobytes())
    for node in content.node:
        settings = sorted(attribute.SerializeToString() for attribute in node.attribute)
        made_from = digest(node.domain, node.op_type, settings, [known[name] for name in node.input])
        known |= {name: digest(made_from, index) for index, name in enumerate(node.output)}
    interface = [(value.name, value.type.SerializeToString(), known[value.name]) for value in ends]
    return {"inputs and outputs": interface, **Counter(known.values())}, {"names": sorted(known)}


def digest(*parts: object) -> str:
    """A short name of values that are equal."""
    return sha256(repr(parts).encode()).hexdigest()


def different(old: Items, new: Items) -> list[str]:
    """Names that only one side has, or whose values differ."""
    missing = object()
    names = sorted(old.keys() | new.keys())
    return [name for name in names if old.get(name, missing) != new.get(name, missing)]


def inputs(architecture: Any) -> Items:
    """What networks are asked, equal for both packages."""
    generator = torch.Generator().manual_seed(0)
    size = (2, architecture["in_channels"], architecture["image_size"], architecture["image_size"])
    if architecture.get("classes"):
        latents, timesteps = torch.randn(size, generator=generator), torch.tensor([3, 900])
        return {"hidden_states": latents, "timestep": timesteps, "class_labels": torch.tensor([0, 1])}
    rows = {"sample": torch.randn(size, generator=generator), "timestep": torch.tensor([3, 900])}
    if architecture.get("context_channels"):
        tokens = torch.randn(2, 5, architecture["context_channels"], generator=generator)
        rows["encoder_hidden_states"] = tokens
    return rows


def compared(old: Path, new: Path) -> tuple[list[str], Counter[str], int]:
    """Sentences on what differs, how often each entry does that may, and the number of things compared."""
    before, after = artifacts(old), artifacts(new)
    found = [f"{name}: only one of the two wrote it" for name in sorted(before.keys() ^ after.keys())]
    told: Counter[str] = Counter()
    count = 0
    for name in sorted(before.keys() & after.keys()):
        (content, said), (other_content, other_said) = taken_apart(before[name]), taken_apart(after[name])
        if items := different(content, other_content):
            found.append(f"{name}: {len(items)} of {len(content)} differ: {', '.join(items[:3])}")
        told.update(f"{kind(name)}: {item}" for item in different(said, other_said))
        count += len(content)
    return found, told, count


def kind(name: str) -> str:
    """What a file is called in the list of what may differ."""
    if "/units" in name:
        return "units"
    return "zarr" if name.endswith(".zarr") else ".".join(Path(name).name.split(".")[-2:])


@torch.no_grad()
def unread(old: Path, new: Path) -> Iterator[str]:
    """Checkpoints and folders of the older package that the newer one reads otherwise than its own."""
    for path in sorted(new.glob("*/*.quantized.safetensors")):
        name = path.relative_to(new)
        saved = name.parent / "saved"
        others = [old / name, *((old / saved, new / saved) if ".fbr." in path.name else ())]
        yield from disagreeing(path, others)
    if (new / "ddim/pipeline").exists():
        yield from disagreeing(new / "ddim/pipeline", [old / "ddim/pipeline"])
        whole = DDIMPipeline.from_pretrained(old / "ddim/pipeline").unet
        rows = inputs(whole.facts["architecture"])
        if not torch.equal(whole(**rows).sample, edadm.load(new / "ddim/pipeline")(**rows).sample):
            yield f"{old / 'ddim/pipeline'}: DDIMPipeline.from_pretrained gives another prediction"


def disagreeing(path: Path, others: list[Path]) -> Iterator[str]:
    """Those of the others whose network predicts something else than the one at the path."""
    network = edadm.load(path)
    rows = inputs(network.facts["architecture"])
    expected = network(**rows).sample.numpy().tobytes()
    for other in others:
        if edadm.load(other)(**rows).sample.numpy().tobytes() != expected:
            yield f"{other}: edadm.load gives another prediction than for {path}"


def main(old: Path, new: Path) -> int:
    """Prints what differs; 1 if anything does that must not."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found, told, count = compared(old, new)
    if not count:
        found.append("there was nothing to compare")
    found += unread(old, new)
    if told:
        sys.stdout.write("What files say of themselves differs, which is allowed:\n")
        sys.stdout.writelines(f"  {times:4d} files  {entry}\n" for entry, times in sorted(told.items()))
    sys.stdout.writelines(f"DIFFERENT  {sentence}\n" for sentence in found)
    sys.stdout.write(f"{count} tensors, images, losses and graphs compared; {len(found)} files differ\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
