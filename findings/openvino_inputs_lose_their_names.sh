#!/usr/bin/env bash
# FINDING: once OpenVINO has compiled an ONNX model, `any_name` of an input may be the name of a value inside the graph.
# Seen with: openvino==2026.4.1, onnx==1.23.2, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: `{port.any_name: port for port in compiled.inputs}` has the names of the graph's inputs, as `read_model` gives them.
# Seen: an operation on an input that changes nothing (here a product with ones, as `torch.onnx.export` writes one for timesteps) is
#   removed while compiling, the input takes over the name of its result, too, and `any_name` is the first of both in the alphabet:
#     result 'copy': read as 'rows', compiled as 'copy' of ['copy', 'rows']
#     result 'same': read as 'rows', compiled as 'rows' of ['rows', 'same']
# Matters because: whether a lookup by `any_name` works depends on names that an exporter gives to inner values. `compiled.input(name)` and a
#   call with inputs by name know all of them; edadm uses these alone (edadm/deploy/backends/openvino).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "openvino==2026.4.1" "onnx==1.23.2" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import openvino
from onnx import TensorProto, checker, helper, numpy_helper


def model(result):
    """rows (n,) times ones, in fp32."""
    nodes = [
        helper.make_node("Shape", ["rows"], ["shape"]),
        helper.make_node("Expand", ["one", "shape"], ["ones"]),
        helper.make_node("Mul", ["rows", "ones"], [result]),
        helper.make_node("Cast", [result], ["out"], to=TensorProto.FLOAT),
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "graph", [rows], [out], [numpy_helper.from_array(np.ones(1, np.int64), "one")])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    checker.check_model(whole)
    return whole.SerializeToString()


found = {}
for result in ("copy", "same"):
    core = openvino.Core()
    read = core.read_model(model(result))
    before = read.inputs[0].any_name
    compiled = core.compile_model(read, "CPU")
    after = compiled.inputs[0]
    print(f"result '{result}': read as '{before}', compiled as '{after.any_name}' of {sorted(after.names)}")
    assert list(compiled({"rows": np.array([3, 4])})[0]) == [3, 4]
    found[result] = (before, after.any_name)
assert found == {"copy": ("rows", "copy"), "same": ("rows", "rows")}
PY
