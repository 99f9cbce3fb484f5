"""Pickles are read as data: whatever they hold, tensors come out right or one sentence says why not, and nothing runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import random
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edadm.networks.weights import CheckpointError, read_state
from edadm.networks.weights.packed.pickles import Name, Thing, read_pickle

State = dict[str, torch.Tensor]
CASES = 300


class Mine:
    """A class of the program that trained."""

    def __init__(self) -> None:
        self.rate = 1


class Mode(enum.Enum):
    """An enumeration of the program that trained."""

    FAST = 1


class MyDict(dict):
    """A dictionary of the program that trained."""


def state() -> State:
    """Two views of one storage, one transposed, and one of half precision."""
    whole = torch.arange(12.0)
    return {
        "conv_in.weight": whole[:6].reshape(2, 3),
        "conv_in.bias": whole[6:].reshape(3, 2).t(),
        "norm.weight": torch.tensor([0.5, -1.25], dtype=torch.float16),
    }


@pytest.fixture
def omega(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object of a package that is not installed when the file is read."""
    module = types.ModuleType("no_such_package.listconfig")

    class ListConfig:
        def __init__(self) -> None:
            self._content = [1, "a"]

        def __setstate__(self, _: object) -> None:
            raise AssertionError("brought to life")

    ListConfig.__module__, ListConfig.__qualname__ = module.__name__, "ListConfig"
    module.ListConfig = ListConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_such_package", types.ModuleType("no_such_package"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return ListConfig


BESIDE: dict[str, Callable[[], Any]] = {
    "numpy scalar": lambda: np.float64(0.5),
    "numpy array": lambda: np.arange(6.0).reshape(2, 3),
    "numpy dtype": lambda: np.dtype("float32"),
    "numpy generator": np.random.get_state,
    "namespace": lambda: argparse.Namespace(lr=1e-4),
    "path": lambda: pathlib.PosixPath("somewhere"),
    "class of __main__": Mine,
    "the class itself": lambda: {Mine: 1},
    "enum": lambda: Mode.FAST,
    "datetime": lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "partial": lambda: functools.partial(print, 1),
    "collections": lambda: [
        {1},
        frozenset({2}),
        collections.deque([1]),
        collections.Counter("ab"),
        collections.defaultdict(int),
    ],
    "values": lambda: [
        1j,
        b"bytes",
        bytearray(b"x"),
        slice(1, 2),
        2**100,
        -1,
        None,
        (1, (2, (3, 4, 5), 6)),
        float("nan"),
    ],
    "torch objects": lambda: [
        torch.device("cpu"),
        torch.float16,
        torch.Size([1]),
        torch.get_rng_state(),
        torch.Generator().get_state(),
    ],
    "optimizer": lambda: torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))]).state_dict(),
    "a recursive list": lambda: (lambda ring: ring.append(ring) or ring)([]),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("what", BESIDE)
def test_objects_of_training_beside_the_weights_do_no_harm(what: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(
        {"state_dict": state(), "callbacks": {"beside": BESIDE[what]()}},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    read = read_state(path)
    assert list(read) == list(state())
    assert all(
        torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
        for name, tensor in state().items()
    )


@pytest.mark.parametrize("protocol", [1, 2, 4, 5])
def test_every_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    content = {
        "state_dict": collections.OrderedDict(state()),
        "beside": [Mine(), Mode.FAST, np.float64(2), {3, 4}, "ü\n", b"\0", True, 2**70],
    }
    for zipped in (True, False):
        torch.save(
            content, tmp_path / "m.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped
        )
        read = read_state(tmp_path / "m.pt")
        assert all(torch.equal(read[name], tensor) for name, tensor in state().items())


def test_objects_of_absent_packages_are_not_imported(omega: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "hyper_parameters": omega()}, tmp_path / "last.ckpt")
    for name in ("no_such_package", "no_such_package.listconfig"):
        del sys.modules[name]
    assert list(read_state(tmp_path / "last.ckpt")) == list(state())
    assert "no_such_package" not in sys.modules


def test_parameters_and_dictionaries_of_other_classes_are_read(tmp_path: Path) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in state().items()}
    parameters["norm.weight"].note = "kept by PyTorch as an attribute"
    torch.save({"state_dict": MyDict(parameters)}, tmp_path / "m.pt")
    assert all(torch.equal(tensor, state()[name]) for name, tensor in read_state(tmp_path / "m.pt").items())


def test_a_whole_module_is_read_as_its_state_dict(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    module.register_buffer("scratch", torch.zeros(1), persistent=False)
    expected = module.state_dict()
    for content in (module, {"model": module, "epoch": 3}):
        torch.save(content, tmp_path / "m.pt")
        read = read_state(tmp_path / "m.pt")
        assert set(read) == set(expected)
        assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())


def test_types_without_a_storage_of_their_own_are_read(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.tensor([1, 2], dtype=torch.uint16),
        "b.weight": torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn),
    }
    tensors["c.weight"] = torch.zeros(0, 4)
    tensors["d.weight"] = torch.ones(1).expand(3)
    torch.save(tensors, tmp_path / "m.pt")
    read = read_state(tmp_path / "m.pt")
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }
    assert all(torch.equal(read[name].float(), tensor.float()) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("tensor", "named", "line"),
    [
        (torch.eye(3).to_sparse(), "torch._utils._rebuild_sparse_tensor", "tensor.to_dense()"),
        (
            torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "torch._utils._rebuild_qtensor",
            "tensor.dequantize()",
        ),
        (np.zeros(3), "numpy._core.multiarray._reconstruct", "tensor.detach()"),
        (Mine(), "tests.networks.weights.test_pickles.Mine", "tensor.detach()"),
        ([torch.zeros(2)], "a list", "tensor.detach()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_plain_tensor_is_refused_with_its_class_and_a_line(
    tensor: Any, named: str, line: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": {**state(), "odd.weight": tensor}}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path / "m.pt")
    text = str(caught.value)
    assert f"holds 'odd.weight' as '{named}', not as a plain tensor" in text
    assert (
        f"`torch.save({{name: {line} for name, tensor in model.state_dict().items()}}, 'clean.pt')`" in text
    )


class Touches:
    """Would create a file if it were unpickled."""

    def __init__(self, how: Any, marker: Path):
        self.how, self.marker = how, marker

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how, (self.marker,)


def _touch(path: Path) -> None:
    path.touch()


def payloads(marker: Path) -> list[Any]:
    """Objects whose only effect, if they were made, is a file."""
    return [
        Touches(_touch, marker),
        Touches(pathlib.Path.touch, marker),
        functools.partial(_touch, marker),
        Touches(Touches, marker),
    ]


def test_the_payloads_would_create_a_file(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "beside": payloads(tmp_path / "executed")[0]}, tmp_path / "m.pt")
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


def odd_content(source: random.Random, marker: Path) -> Any:
    """Containers of many kinds around tensors, numbers of all types as keys, and payloads at any place."""

    def odd(depth: int) -> Any:
        kind = source.randrange(13 if depth < 4 else 8)
        if kind < 2:
            return source.choice(payloads(marker))
        if kind < 8:
            return source.choice(
                [
                    state()["conv_in.weight"],
                    None,
                    5,
                    "text",
                    1.5,
                    b"x",
                    np.float64(1),
                    Mine(),
                    Mode.FAST,
                    torch.eye(2).to_sparse(),
                ]
            )
        keys = [
            "conv_in.weight",
            "state_dict",
            "model",
            "ema",
            "shadow",
            3,
            None,
            (1, 2),
            "a.b",
            2.5,
            "optimizer",
            Mode.FAST,
        ]
        if kind < 11:
            return {source.choice(keys): odd(depth + 1) for _ in range(source.randrange(4))}
        return [odd(depth + 1) for _ in range(source.randrange(4))]

    content = odd(0)
    return {"state_dict": state(), "beside": content} if source.random() < 0.3 else content


def mutated(data: bytes, source: random.Random) -> bytes:
    """A few bytes changed, cut out or doubled; or cut short."""
    changed = bytearray(data)
    for _ in range(source.randrange(1, 6)):
        at = source.randrange(len(changed) or 1)
        match source.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del changed[at : at + source.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + source.randrange(1, 20)]
            case _ if len(changed) > 40:
                del changed[max(at, 30) :]
    return bytes(changed)


def rewritten(path: Path, source: random.Random) -> None:
    """A file of `torch.save` whose pickle is changed and whose checksums are right."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, mutated(data, source) if name.endswith("data.pkl") else data)


def outcome(path: Path) -> str:
    """What reading a file gives: its tensors, or a sentence of one line."""
    sentence = ""
    try:
        read = read_state(path)
    except CheckpointError as error:
        sentence = str(error)
    if sentence:
        assert sentence.isprintable()  # of one line
        return "refused"
    assert all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in read.items())
    return "read"


def test_odd_pickles_give_tensors_or_a_sentence_and_run_nothing(tmp_path: Path) -> None:
    source = random.Random(12)
    path, marker = tmp_path / "odd.pt", tmp_path / "executed"
    outcomes = collections.Counter()
    for case in range(CASES):
        zipped = case % 3 > 0
        torch.save(
            odd_content(source, marker),
            path,
            _use_new_zipfile_serialization=zipped,
            pickle_protocol=source.choice([1, 2, 4]),
        )
        if case % 2:
            rewritten(path, source) if zipped else path.write_bytes(mutated(path.read_bytes(), source))
        outcomes[outcome(path)] += 1
        assert not marker.exists(), f"case {case}"
    assert outcomes["read"] > CASES / 10
    assert outcomes["refused"] > CASES / 10


def test_random_instructions_end_in_a_sentence(tmp_path: Path) -> None:
    source = random.Random(3)
    codes = b"(.0125NKX]}){tubaqhrRciojlds\x81\x85\x86\x87\x88\x89\x8c\x90\x91\x92\x93\x94Q\x8a\x95"
    path = tmp_path / "m.pt"
    for _ in range(CASES):
        path.write_bytes(
            b"\x80\x02" + bytes(source.choice(codes) for _ in range(source.randrange(60))) + b"."
        )
        assert outcome(path) == "refused"


@pytest.mark.parametrize("deep", ["key", "list", "call"])
def test_deep_nesting_ends_in_a_sentence(deep: str, tmp_path: Path) -> None:
    depth = 20_000
    body = {
        "key": b"}" + b")" + b"\x85" * depth + b"K\x01s",
        "list": b"(" * 0 + b"]" * depth + b"a" * (depth - 1),
        "call": b")" + b"\x85" * depth + b")R",
    }[deep]
    (tmp_path / "m.pt").write_bytes(b"\x80\x02" + body + b".")
    assert outcome(tmp_path / "m.pt") == "refused"


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    class Larger:
        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor

        def __reduce__(self) -> tuple[Any, ...]:
            rebuild, (storage, _, _, stride, *rest) = self.tensor.__reduce_ex__(2)[:2]
            return rebuild, (storage, 5, (2, 3), stride, *rest)

    torch.save({"conv.weight": Larger(torch.zeros(2, 3))}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="a tensor larger than what is stored of it"):
        read_state(tmp_path / "m.pt")


def test_a_damaged_record_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"conv.weight": torch.full((64,), 3.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((4,), 3.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"\(the record 0 is damaged\)"):
        read_state(path)


def test_files_without_checksums_and_compressed_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_state(path)["conv_in.bias"], state()["conv_in.bias"])
    with (
        zipfile.ZipFile(path) as archive,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in archive.infolist():
            entry.CRC = None  # type: ignore[assignment]
            packed.writestr(entry.filename, archive.open(entry).read())
    assert torch.equal(read_state(tmp_path / "packed.pt")["conv_in.bias"], state()["conv_in.bias"])


def test_plain_pickles_and_programs_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a.weight": np.zeros(2)}))
    with pytest.raises(
        CheckpointError, match=r"is a plain pickle, .*torch\.save\(model\.state_dict\(\), 'clean\.pt'\)"
    ):
        read_state(tmp_path / "m.pkl")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            archive.writestr(name, b"\x80\x02).")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_state(tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(
        CheckpointError, match=r"is a zip archive without weights of PyTorch \(inside: 'readme\.txt'\)"
    ):
        read_state(tmp_path / "m.zip")


def test_calls_are_noted_and_not_made() -> None:
    thing = read_pickle(
        io.BytesIO(pickle.dumps(Touches(_touch, Path("nowhere")), protocol=2)), lambda _: None
    )
    assert isinstance(thing, Thing)
    assert thing.maker == Name(__name__, "_touch")
    assert str(thing) == f"{__name__}._touch"
