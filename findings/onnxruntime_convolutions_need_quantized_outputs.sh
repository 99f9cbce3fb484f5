#!/usr/bin/env bash
# FINDING: onnxruntime computes a convolution of dequantized int8 operands in floating point unless its output is quantized, too; a matrix product of
#   such operands becomes one of integers either way.
# Seen with: onnxruntime==1.32.0, onnx==1.23.2, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: input and weight between QuantizeLinear and DequantizeLinear are enough for both, since the output's scale is needed by neither.
# Seen: operators of the graph that onnxruntime runs:
#     Conv, output in floats: QuantizeLinear DequantizeLinear DequantizeLinear Conv
#     Conv, output quantized: QuantizeLinear Transpose QLinearConv Transpose DequantizeLinear
#     MatMul, output in floats: QuantizeLinear MatMulIntegerToFloat
#     MatMul, output quantized: QuantizeLinear QLinearMatMul DequantizeLinear
# Matters because: models that keep sums in floating point between layers (residual streams, as in diffusion networks) get no integer convolution from the
#   QDQ form, and no warning; edadm's default file divides convolutions into ConvInteger (docs/integer_cpu.md says what each form costs).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "onnxruntime==1.32.0" "onnx==1.23.2" "numpy==2.4.6"
cat > "$folder/seen.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(3)
draw = np.random.default_rng(0)


def operators(kind: str, quantized_output: bool) -> list[str]:
    """Operators after optimization of input -> int8 -> one layer with int8 weights -> output."""
    shapes = {"Conv": ([1, 16, 8, 8], (16, 16, 3, 3)), "MatMul": ([4, 16], (16, 16))}
    shape, weight = shapes[kind]
    held = {
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
        "codes": draw.integers(-127, 128, weight).astype(np.int8),
        "step": np.float32(0.01),
        "no_zero": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "no_zero"], ["w"]),
        helper.make_node(kind, ["d", "w"], ["sum" if quantized_output else "y"]),
    ]
    if quantized_output:
        nodes += [
            helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["r"]),
            helper.make_node("DequantizeLinear", ["r", "scale", "zero"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = sys.argv[1]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(shape, np.float32)})
    return [node.op_type for node in onnx.load(sys.argv[1]).graph.node]


for kind, ints in (("Conv", "QLinearConv"), ("MatMul", "QLinearMatMul")):
    for quantized in (False, True):
        found = operators(kind, quantized)
        print(f"{kind}, output {'quantized' if quantized else 'in floats'}: {' '.join(found)}")
        if kind == "Conv":
            assert (ints in found, "Conv" in found or "FusedConv" in found) == (quantized, not quantized), found
        else:
            assert "MatMul" not in found and any(name.startswith(("QLinear", "MatMulInteger")) for name in found), found
PY
"$folder/venv/bin/python" "$folder/seen.py" "$folder/optimized.onnx"
