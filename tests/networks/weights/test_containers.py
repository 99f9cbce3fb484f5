"""Which tensors are taken out of the containers in which people keep them, and under which names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edadm.networks.weights import CheckpointError, read_state

State = dict[str, torch.Tensor]
NAMES = ("conv_in.weight", "mid.block_1.conv1.bias", "conv_out.bias")


def state(value: float, prefix: str = "") -> State:
    return {f"{prefix}{name}": torch.full((2,), value) for name in NAMES}


RAW, MEAN = state(1.0), state(2.0)
OPTIMIZER = {
    "state": {0: {"step": 5, "exp_avg": torch.zeros(3)}},
    "param_groups": [{"lr": 2e-4, "params": [0]}],
}
BOTH = {
    "list of five": [RAW, OPTIMIZER, 10, 1000, MEAN],
    "list of five, DataParallel": [state(1.0, "module."), OPTIMIZER, 10, 1000, MEAN],
    "model, ema": {"model": RAW, "ema": MEAN, "step": 5},
    "model, ema, optimizer, arguments": {"model": RAW, "ema": MEAN, "opt": OPTIMIZER, "args": None},
    "net_model, ema_model": {"net_model": RAW, "ema_model": MEAN, "optim": OPTIMIZER, "x_T": torch.zeros(2)},
    "state_dict, ema_state_dict": {"state_dict": RAW, "ema_state_dict": MEAN},
    "model, ema_state_dict": {"model": RAW, "ema_state_dict": MEAN},
    "model_state_dict, ema": {"model_state_dict": RAW, "optimizer_state_dict": OPTIMIZER, "ema": MEAN},
    "params, params_ema": {"params": RAW, "params_ema": MEAN},
    "averages first": {"ema": MEAN, "model": RAW},
    "shadow": {"model": RAW, "ema": {"decay": 0.999, "num_updates": 7, "shadow": MEAN}},
    "a module of averages": {
        "model": RAW,
        "ema": {"initted": torch.ones(1), "step": torch.ones(1), **state(2.0, "ema_model.")},
    },
    "AveragedModel": {"model": RAW, "ema": {"n_averaged": torch.tensor(3), **state(2.0, "module.")}},
    "Lightning's averaging": {
        "state_dict": MEAN,
        "current_model_state": RAW,
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "_orig_mod. and module.": {"model": state(1.0, "module._orig_mod."), "ema": state(2.0, "_orig_mod.")},
    "prefixes of a flat state": state(1.0, "model.") | state(2.0, "ema_model."),
    "model_ema. with dots": state(1.0, "model.") | state(2.0, "model_ema."),
    "unet., unet_ema.": {"state_dict": state(1.0, "unet.") | state(2.0, "unet_ema.")},
    "none, ema.": {"state_dict": RAW | state(2.0, "ema.")},
    "nested": {"checkpoint": {"model": RAW, "ema": MEAN}},
    "nested three deep": {"checkpoint": {"trainer": {"model": RAW, "ema": MEAN}}},
    "a rate in the name": {"model": RAW, "ema_0.9999": MEAN},
    "a hyphen": {"model": RAW, "model-ema": MEAN},
    "capitals": {"model": RAW, "modelEMA": MEAN},
    "Polyak": {"model": RAW, "polyak": MEAN},
    "a callback's": {
        "state_dict": state(1.0, "model."),
        "callbacks": {"EMACallback": {"state": state(2.0, "model.")}},
    },
    "averages and the best": {"model": RAW, "ema": MEAN, "best_model": state(3.0)},
    "ema.module. beside model.module.": state(1.0, "model.module.") | state(2.0, "ema.module."),
    "averages below a module": state(1.0, "denoiser.model.") | state(2.0, "denoiser.ema_model."),
}


def value(read: State) -> float:
    assert set(read) == set(NAMES)
    return read["conv_in.weight"][0].item()


@pytest.mark.parametrize("what", BOTH)
def test_averaged_weights_are_taken_where_there_are_any_and_said(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt"
    torch.save(BOTH[what], path)
    assert value(read_state(path)) == 2.0
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"{path}: averaged weights are taken \(.+\); set ema: false for those as trained\n", told
    )
    assert value(read_state(path, ema=True)) == 2.0
    capsys.readouterr()
    assert value(read_state(path, ema=False)) == 1.0
    assert not capsys.readouterr().err


RAW_ALONE = {
    "the state itself": RAW,
    "[model]": [RAW],
    "a list without averages": [RAW, OPTIMIZER, 10, 1000],
    "a list with the optimizer's state last": [RAW, 10, OPTIMIZER],
    "model_state_dict": {"epoch": 3, "model_state_dict": RAW, "optimizer_state_dict": OPTIMIZER},
    "nested twice": {"state_dict": {"state_dict": RAW}},
    "model. of a wrapper": {"state_dict": state(1.0, "model.")},
    "model.module.": {"state_dict": state(1.0, "model.module.")},
    "module.model._orig_mod.": state(1.0, "module.model._orig_mod."),
    "FSDP around layers": {
        name.replace("block_1.", "block_1._fsdp_wrapped_module._checkpoint_wrapped_module."): tensor
        for name, tensor in state(1.0, "_forward_module._fsdp_wrapped_module.").items()
    },
    "numbers beside tensors": RAW | {"epoch": 3, "global_step": 5, "note": "x", "optimizer": OPTIMIZER},
    "an unknown key": {"whatever": RAW, "epoch": 1},
    "three deep": {"checkpoint": {"trainer": {"state_dict": RAW}}},
    "beside the state of random numbers": {"checkpoint": RAW, "rng": {"cpu": torch.zeros(3)}},
    "Adam's moments by name": {
        "model": RAW,
        "optimizer": {"exp_avg": state(3.0)},
        "exp_avg": state(3.0),
        "grads": state(3.0),
    },
    "the same twice": {"model": RAW, "state_dict": RAW},
    "a metric's averages": {"state_dict": RAW, "callbacks": {"avg": [torch.zeros(()), torch.zeros(())]}},
    "no averages after all": {"model": RAW, "ema": None, "ema_decay": 0.99},
}


@pytest.mark.parametrize("what", RAW_ALONE)
def test_weights_without_averages_are_taken_as_they_are(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt"
    torch.save(RAW_ALONE[what], path)
    assert value(read_state(path)) == value(read_state(path, ema=False)) == 1.0
    assert not capsys.readouterr().err
    with pytest.raises(
        CheckpointError, match="holds no averaged weights; use a file that does, or set ema: auto or false"
    ):
        read_state(path, ema=True)


@pytest.mark.parametrize("key", ["ema", "params_ema", "ema_state_dict"])
def test_averages_alone_are_taken_unless_they_are_not_wanted(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt"
    torch.save({key: MEAN, "epoch": 3}, path)
    assert value(read_state(path)) == value(read_state(path, ema=True)) == 2.0
    assert f"holds averaged weights alone ('{key}'), and they are taken" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"holds averaged weights alone .*; set ema: true or auto"):
        read_state(path, ema=False)


@pytest.mark.parametrize(
    "averages", [{"shadow_params": list(MEAN.values())}, list(MEAN.values())], ids=["shadow_params", "list"]
)
def test_averages_without_names_are_refused_with_the_reason(averages: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"model": RAW, "ema": averages}, path)
    for ema in (True, "auto"):
        with pytest.raises(
            CheckpointError,
            match=r"its averages \('ema'\) are a list of tensors without names.*set ema: false",
        ):
            read_state(path, ema=ema)
    assert value(read_state(path, ema=False)) == 1.0


UNTOLD = {
    "third of five": [RAW, OPTIMIZER, MEAN, 10, 1000],
    "a target": {"model": RAW, "target_model": MEAN},
    "two rates": {"model": RAW, "ema_fast": state(3.0), "ema_slow": MEAN},
    "a list in the optimizer": {"state_dict": RAW, "optimizer_states": [{"ema": list(MEAN.values())}]},
}


@pytest.mark.parametrize("what", UNTOLD)
def test_a_second_set_of_the_networks_tensors_is_not_passed_over(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(UNTOLD[what], path)
    with pytest.raises(
        CheckpointError,
        match=r"(does not say which are|several|its) averages.*set ema: false for the weights as trained",
    ):
        read_state(path)
    assert value(read_state(path, ema=False)) == 1.0


def test_two_states_in_a_list_are_not_guessed_at(tmp_path: Path) -> None:
    torch.save([RAW, MEAN], tmp_path / "m.pt")
    with pytest.raises(
        CheckpointError,
        match="a list of two sets of tensors, and does not say which are averages",
    ):
        read_state(tmp_path / "m.pt")
    assert value(read_state(tmp_path / "m.pt", ema=False)) == 1.0


def test_averages_that_lack_a_weight_are_refused_and_those_that_lack_buffers_are_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, path = (
        {"a.weight": torch.ones(2), "a.bias": torch.ones(2), "norm.count": torch.ones(1)},
        tmp_path / "m.pt",
    )
    mean = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)}
    torch.save({"model": raw, "ema": mean}, path)
    assert [tensor.sum().item() for tensor in read_state(path).values()] == [0, 0, 1]
    assert "1 of 3 tensors have no average (first 'norm.count') and stay" in capsys.readouterr().err
    torch.save({"model": raw, "ema": {"a.weight": torch.zeros(2)}}, path)
    with pytest.raises(
        CheckpointError,
        match=r"holds not all averaged weights \('a\.bias' is absent\); use one that does, or set ema: false",
    ):
        read_state(path)


def test_averages_of_other_names_are_taken_alone_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"encoder.a.weight": torch.ones(2)}, "ema": MEAN}, tmp_path / "m.pt")
    assert value(read_state(tmp_path / "m.pt")) == 2.0
    assert "whose names differ" in capsys.readouterr().err


def test_names_that_become_one_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1), "module.a.weight": torch.ones(1)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"holds 'module\.a\.weight' twice|holds 'a\.weight' twice"):
        read_state(tmp_path / "m.pt")


def test_several_networks_are_not_guessed_at(tmp_path: Path) -> None:
    torch.save({"first": RAW, "second": MEAN}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"holds several sets of tensors \('first', 'second'\)"):
        read_state(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "content",
    [{}, [], None, 5, {"epoch": 3}, {"model": {}}, OPTIMIZER, {"state_dict": [1, 2]}, [[[[[[[[[RAW]]]]]]]]]],
    ids=str,
)
def test_files_without_weights_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(
        CheckpointError, match=r"holds no plain dictionary of tensors|the state of a training"
    ):
        read_state(tmp_path / "m.pt")


def test_tensors_named_by_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(2), 1: torch.ones(2)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="named by numbers"):
        read_state(tmp_path / "m.pt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors", "bin", "xyz"])
def test_the_content_decides_and_not_the_suffix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{suffix}"
    save_file(RAW, path)
    assert value(read_state(path)) == 1.0
    for zipped in (True, False):
        torch.save(RAW, path, _use_new_zipfile_serialization=zipped)
        assert value(read_state(path)) == 1.0
