"""A cluster of two nodes on this machine, and a network to serve on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(5).standard_normal((8, 3)).astype(np.float32)


def network(path: Path) -> str:
    """y = x W with random W, at batch 1 as most files are."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(WEIGHTS, "W")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Two nodes of two cores; the second one can be killed."""
    import ray
    from ray import cluster_utils

    settings = {
        # Each worker process is a second of CPU: none is started before it is needed.
        "enable_worker_prestart": False,
        "prestart_worker_first_driver": False,
        # A node that is gone is known to be within seconds, not a quarter of a minute.
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        connect=False,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "_system_config": settings},
    )
    cluster.second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
