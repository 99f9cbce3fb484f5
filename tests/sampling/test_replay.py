"""Replayed calls give what calls give; captures are played by a stand-in, since there is no GPU here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from edadm.networks.inputs import Rows
from edadm.offload.limits import GIB
from edadm.sampling.replay import EAGER_CALLS, MOST_GRAPHS, Again, Replay


class Captures:
    """As a GPU does it: hooks run at the capture alone, and a replay reads and writes the memory of then."""

    def __init__(self, layer: nn.Linear, works: bool = True) -> None:
        self.layer, self.works, self.replays = layer, works, list[int]()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Again, Tensor] | None:
        read: list[Tensor] = []
        handle = self.layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        output, number = work(), len(self.replays)
        handle.remove()
        self.replays.append(0)

        def again() -> None:
            self.replays[number] += 1
            output.copy_(nn.functional.linear(read[0], self.layer.weight, self.layer.bias))

        return (again, output) if self.works else None


def network() -> tuple[nn.Linear, Callable[[Rows], Tensor]]:
    layer = nn.Linear(3, 2).requires_grad_(False)
    return layer, lambda rows: layer(rows.tensors["latents"])


def rows(count: int = 4, seed: int = 0) -> Rows:
    return Rows({"latents": torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))})


def test_a_shape_that_came_often_is_replayed_on_new_numbers_and_gives_what_the_network_gives() -> None:
    layer, predict = network()
    captures = Captures(layer)
    replay = Replay(captures)
    given = [rows(seed=seed) for seed in range(6)]
    found = [replay(predict, one) for one in given]
    assert all(torch.equal(a, predict(b)) for a, b in zip(found, given, strict=True))
    assert captures.replays == [6 - EAGER_CALLS]
    assert replay.graphs == 1
    replay(predict, rows(3))
    assert len(captures.replays) == 1  # another shape begins anew


def test_layouts_of_memory_are_kept_apart() -> None:
    layer, predict = network()
    captures = Captures(layer)
    replay = Replay(captures)
    turned = Rows({"latents": torch.arange(12.0).reshape(3, 4).T})
    for one in (rows(), turned) * 4:
        assert torch.equal(replay(predict, one), predict(one))
    assert len(captures.replays) == 2
    repeated = Rows({"latents": torch.ones(1, 3).expand(4, 3)})
    for _ in range(4):
        replay(predict, repeated)
    assert len(captures.replays) == 2


def test_what_cannot_be_captured_is_computed_and_not_tried_again() -> None:
    layer, predict = network()
    captures = Captures(layer, works=False)
    replay = Replay(captures)
    for seed in range(6):
        assert torch.equal(replay(predict, rows(seed=seed)), predict(rows(seed=seed)))
    assert captures.replays == [0]
    assert replay.graphs == 0


class Graph:
    """A captured graph on a GPU that is not there."""

    def __init__(self) -> None:
        self.dropped = False

    def replay(self) -> None:
        """Nothing was captured."""

    def reset(self) -> None:
        self.dropped = True


@pytest.mark.parametrize(("free", "kept"), [(7, True), (6, False)])
def test_a_network_that_fills_the_gpu_is_computed_call_by_call_and_the_log_says_why(
    free: int, kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = Graph()
    for name in ("Stream", "graph_pool_handle", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, object)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *told, **named: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * GIB, 13 * GIB))
    _, predict = network()
    replay = Replay()
    for seed in range(EAGER_CALLS + 1):
        replay(predict, rows(seed=seed))
    assert (replay.graphs, graph.dropped) == (int(kept), not kept)
    said = "call by call: it cannot be captured as a CUDA graph (beside one, 6.0 GiB of the GPU's 13.0 GiB"
    assert (said in capsys.readouterr().err) != kept


def test_there_are_so_many_graphs_and_no_more() -> None:
    layer, predict = network()
    captures = Captures(layer)
    replay = Replay(captures)
    for count in range(1, MOST_GRAPHS + 3):
        for _ in range(EAGER_CALLS + 2):
            replay(predict, rows(count))
    assert len(captures.replays) == MOST_GRAPHS


def test_a_listener_gets_of_every_call_what_it_would_get_without_replays() -> None:
    layer, predict = network()
    given = [rows(seed=seed) for seed in range(7)]

    def heard(replay: Replay | None) -> list[list[Tensor]]:
        batches = []
        for kept in (2, 1, 2):
            calls: list[Tensor] = []
            handle = layer.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0][:kept]))  # noqa: B023
            with nullcontext() if replay is None else replay.noting(calls, kept):
                for one in given:
                    predict(one) if replay is None else replay(predict, one)
            handle.remove()
            batches.append(calls)
        return batches

    replay = Replay(Captures(layer))
    for plain, replayed in zip(heard(None), heard(replay), strict=True):
        assert len(plain) == len(replayed) == len(given)
        assert all(torch.equal(a, b) for a, b in zip(plain, replayed, strict=True))
