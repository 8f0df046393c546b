"""ONNX Runtime's MatMulNBits with accuracy level 4 (activations in int8) as a peer; optional.

Every copy of a weight has a session of its own, as a run of one session computes all its outputs.
All sessions share one pool of threads, so that going to another session wakes no other threads;
where this ONNX Runtime has no shared pool, each session has its own, which sleeps between calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from bench.cells import Measured
from bench.implementations import INT8_TOLERANCE, Absent, Implementation, Weight, number_of_copies
from torch import Tensor

__all__ = ["make", "version"]


def version() -> str | None:
    """The version of ONNX Runtime; None: it is not installed."""
    try:
        runtime, _ = _modules()
    except Absent:
        return None
    return str(runtime.__version__)


def make(weight: Weight) -> Implementation:
    """The sessions for one weight. Raises Absent where ONNX Runtime or onnx is not installed."""
    runtime, _ = _modules()
    is_shared = _share_pool(torch.get_num_threads())
    model, size = _model(weight)
    sessions = [_session(runtime, model, is_shared) for _ in range(number_of_copies(size))]

    def prepare(a: Tensor) -> Callable[[int], Any]:
        # Bound inputs and outputs are its fastest way: nothing is allocated or copied in a call.
        rows = runtime.OrtValue.ortvalue_from_numpy(a.float().numpy())
        zeros = np.zeros((a.shape[0], weight.shape.n), np.float32)
        output = runtime.OrtValue.ortvalue_from_numpy(zeros)
        bindings = [session.io_binding() for session in sessions]
        for binding in bindings:
            binding.bind_ortvalue_input("a", rows)
            binding.bind_ortvalue_output("y", output)

        def call(index: int) -> Any:  # noqa: ANN401
            place = index % len(sessions)
            sessions[place].run_with_iobinding(bindings[place])
            return output

        return call

    return Implementation(
        Measured("ort-int8", size, "int8", is_ours=False),
        prepare,
        INT8_TOLERANCE,
        to_tensor=lambda output: torch.from_numpy(output.numpy()).clone(),
    )


@cache
def _modules() -> tuple[Any, Any]:
    try:
        return import_module("onnxruntime"), import_module("onnx")
    except ImportError as error:
        raise Absent(f"`pip install onnxruntime onnx` is needed: {error}") from error


@cache
def _share_pool(threads: int) -> bool:
    """Whether sessions share one pool; a process can set its size once."""
    runtime, _ = _modules()
    if not hasattr(runtime, "set_global_thread_pool_sizes"):
        return False
    runtime.set_global_thread_pool_sizes(threads, 1)
    return True


def _session(runtime: Any, model: bytes, is_shared: bool) -> Any:  # noqa: ANN401
    options = runtime.SessionOptions()
    if is_shared:
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(weight: Weight) -> tuple[bytes, int]:
    """A model of one MatMulNBits, y (m, n) = a (m, k) by the weight, and the weight's bytes."""
    _, onnx = _modules()
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    k, n, group_size = weight.shape.k, weight.shape.n, weight.group_size
    codes = weight.codes.T.contiguous().numpy().astype(np.uint8)  # (n, k)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4  # (n, k / 2); without zero points, zero is 8
    packed = packed.reshape(n, k // group_size, group_size // 2)
    scales = weight.scales.T.contiguous().float().numpy()  # (n, k / group_size)
    node = helper.make_node(
        "MatMulNBits",
        ["a", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=4,
        block_size=group_size,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(packed, "codes"), numpy_helper.from_array(scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString(), packed.nbytes + scales.nbytes
