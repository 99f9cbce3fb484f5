"""Integer convolutions beside cuDNN's and cuBLAS's bf16, and the search for their tiles.

On the problems that a network poses.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.errors import EdadmError
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.products.convolution import run
from edadm.kernels.int8.products.launch import Launch, choose
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.search import candidates
from edadm.kernels.int8.tiles import Problem, Tiles, by_rule, tiles
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows


@contextmanager
def _recorded(network: nn.Module) -> Any:
    """The problems that a network's integer layers solve inside the context, with their inputs' shapes."""
    found: dict[Problem, tuple[int, ...]] = {}
    handles = []

    def record(module: IntegerConv2d, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        x = arguments[0]
        shape = (
            tuple(x.permute(0, 2, 3, 1).shape)
            if x.dim() == 4
            else (x.numel() // x.shape[-1], 1, 1, x.shape[-1])
        )
        rows = output.numel() // module.segments[0].shape[0]
        for segment in module.segments:
            columns, side, _, channels = segment.shape
            found[Problem(rows, columns, channels, side, module.stride)] = (*shape[:3], channels)

    for layer in (module for module in network.modules() if isinstance(module, IntegerConv2d)):
        handles.append(layer.register_forward_hook(record))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def problems_of(network: nn.Module, inputs: Rows) -> dict[Problem, tuple[int, ...]]:
    """The problems that integer layers solve in one evaluation, and the NHWC shape of an input of each."""
    with _recorded(network) as found:
        network_call(network, inputs)
    return found


def _operands(problem: Problem, shape: tuple[int, ...]) -> Operands:
    """Random operands of a problem on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randint(-128, 128, size, dtype=torch.int8, device="cuda", generator=generator)

    ones = torch.ones(problem.columns, device="cuda")
    x, weight = draw(*shape), draw(problem.columns, problem.side, problem.side, problem.channels)
    padding = _padding(problem, x)
    return Operands.of(x, weight, ones, ones, None, problem.stride, padding, 0, torch.bfloat16)


def _launch(operands: Operands, wanted: Tiles) -> Launch:
    """What an integer layer with these operands and tiles launches."""
    return choose(operands.problem, operands.layout, Device.of(operands.x.device), wanted)


def _padding(problem: Problem, x: Tensor) -> int:
    """Of diffusers' convolutions: the same size with stride 1, padded before with stride 2."""
    full = x.shape[0] * (x.shape[1] // problem.stride) * (x.shape[2] // problem.stride)
    return problem.side // 2 if problem.stride == 1 or (problem.rows == full and x.shape[1] % 2 == 0) else 0


def _compile(work: tuple[Problem, tuple[int, ...], Tiles]) -> None:
    """Leaves a kernel in the compiler's cache on disk."""
    problem, shape, wanted = work
    try:
        operands = _operands(problem, shape)
        run(operands, _launch(operands, wanted))
    except Exception:  # a tile that does not fit the GPU; measuring it finds out, too
        return


def compile_ahead(work: Sequence[tuple[Problem, tuple[int, ...], Tiles]], processes: int) -> None:
    """Compiles kernels in parallel, one Python process per share of them."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_compile, work, chunksize=max(1, len(work) // (4 * processes))))


def milliseconds(function: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call on the GPU, its input not in the cache.

    Replayed as a graph, since launching from Python can take longer.
    """
    flush = torch.empty(2**26, dtype=torch.int32, device="cuda")
    side, graph, times = torch.cuda.Stream(), torch.cuda.CUDAGraph(), []
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
        graph.capture_begin()  # not by `torch.cuda.graph`, which collects garbage each time
        function()
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(side)
    for _ in range(repeats + 3):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        times.append((begin, end))
    torch.cuda.synchronize()
    return float(torch.tensor([begin.elapsed_time(end) for begin, end in times[3:]]).median())


def _bf16(problem: Problem, x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    bias = torch.zeros(problem.columns, device="cuda", dtype=torch.bfloat16)
    if problem.side == 1 and problem.stride == 1:
        rows, matrix = (
            x.reshape(-1, problem.channels).bfloat16(),
            weight.reshape(problem.columns, -1).bfloat16(),
        )
        return lambda: F.linear(rows, matrix, bias)
    image, window = x.bfloat16().permute(0, 3, 1, 2), weight.bfloat16().permute(0, 3, 1, 2)
    return lambda: F.conv2d(image, window, bias, problem.stride, _padding(problem, x))


def measure(
    shapes: dict[Problem, tuple[int, ...]],
    search: bool,
    processes: int = 12,
    on_rows: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """One row per problem: milliseconds of bf16 and of int8 with its tiles, and their ratio.

    Or why it `failed`.

    `kernel` is the one that ran, whatever kind the tiles are of. All tiles that were `tried` have their
    milliseconds, and those that were `refused` a reason.

    Args:
        shapes: from `problems_of`.
        search: times all candidates of `edadm.kernels.int8.search` and takes the fastest.
        processes: that compile.
        on_rows: told all rows so far whenever there is one more.
    """
    tried = {problem: candidates(problem) if search else [tiles(problem)] for problem in shapes}
    compile_ahead(
        [(problem, shapes[problem], one) for problem in shapes for one in tried[problem]], processes
    )
    rows: list[dict[str, Any]] = []
    for problem in shapes:
        try:
            rows.append(_measured(problem, shapes[problem], tried[problem]))
        except Exception as error:  # of memory, or no tile that fits: the other problems are measured
            rows.append({"key": problem.key, **problem._asdict(), "failed": sentence(error)})
        on_rows(rows)
    return rows


_agree = torch.equal


def _measured(problem: Problem, shape: tuple[int, ...], tried: Iterable[Tiles]) -> dict[str, Any]:
    torch.cuda.empty_cache()  # each graph of the last problem kept its result
    operands = _operands(problem, shape)
    expected = run(operands, _launch(operands, by_rule(problem)._replace(kind="window")))
    times: dict[Tiles, float] = {}
    refused: dict[Tiles, str] = {}
    for wanted in tried:
        launch = _launch(operands, wanted)
        try:
            if not _agree(run(operands, launch), expected):
                raise EdadmError("its sums are not those of the kernel that all problems have")
            times[wanted] = milliseconds(partial(run, operands, launch))
        except Exception as error:  # Triton has no common error for tiles that do not fit
            refused[wanted] = sentence(error)
    bf16 = milliseconds(_bf16(problem, operands.x, operands.weight))
    row = {
        "key": problem.key,
        **problem._asdict(),
        "bf16_ms": bf16,
        "refused": {_name(one): why for one, why in refused.items()},
    }
    if not times:
        return row | {"failed": "no tiles were accepted"}
    best = min(times, key=times.__getitem__)
    kernel = _launch(operands, best).kernel
    found = {"int8_ms": times[best], "ratio": bf16 / times[best], "tiles": list(best), "kernel": kernel}
    return row | found | {"tried": {_name(one): ms for one, ms in times.items()}}


def _name(tile: Tiles) -> str:
    return "x".join(map(str, tile))


def sentence(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
