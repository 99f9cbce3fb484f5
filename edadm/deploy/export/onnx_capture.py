"""From a module of leaves to an ONNX program."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import config as tracing

from edadm.deploy.export.onnx_leaves import Leaf, translations

OPSET = 21


@torch.no_grad()
def translated(
    graph: nn.Module, example: Sequence[Tensor], free: Sequence[Sequence[int]], advance: Callable[[int], None]
) -> Any:
    """A module as a `torch.onnx.ONNXProgram`, without constants that could be computed before.

    Args:
        graph: of `export_graph`.
        example: its inputs.
        free: axes of each input that have any size.
        advance: told 1 whenever a leaf has been traced, and again when it is written.
    """
    sizes = [dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in free]
    shapes = (*sizes[:2], tuple(sizes[2:])) if len(sizes) > 2 else tuple(sizes)
    for module in graph.modules():
        if isinstance(module, Leaf):
            module.advance = advance
    cached: Any = tracing  # shapes of operations, which are looked up for longer than they are computed
    with warnings.catch_warnings(), cached.patch(fake_tensor_cache_enabled=False):
        warnings.simplefilter("ignore")  # of the exporter, about its own code
        captured: Any = torch.export.export(graph, tuple(example), dynamic_shapes=shapes, strict=False)
        # Operations outside leaves have names in ONNX: to decompose them would trace all of them once more.
        captured.run_decompositions = lambda table: captured
        try:
            program = _as_onnx(captured)
        except torch.onnx.OnnxExporterError:  # one has none
            del captured.run_decompositions
            program = _as_onnx(captured)
        _simplify(program.model)
    return program


def _as_onnx(captured: Any) -> Any:
    return torch.onnx.export(
        captured,
        dynamo=True,
        opset_version=OPSET,
        custom_translation_table=translations(),
        verbose=False,
        optimize=False,
    )


def _simplify(model: Any) -> None:
    """Computes what is constant, and keeps one of what is there twice.

    onnxscript's own list of passes spends nine tenths of its time on patterns that no graph of leaves has.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import (
        div_by_1_rule,
        transpose_transpose_rule,
        unsqueeze_unsqueeze_rule,
    )

    common.InlinePass()(model)
    fold_constants(model)
    rewrite(model, [div_by_1_rule, transpose_transpose_rule, unsqueeze_unsqueeze_rule])
    Sequential(
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)
