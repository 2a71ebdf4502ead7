"""Ray Serve with one ONNX Runtime session, for scripts/bench_serving.py; runs in a venv without RaPP.

    python bench_serving_rayserve.py network.onnx PORT BATCH

The body of a request is a float32 tensor of the network's shape and nothing else, and so is the answer.
"""

import asyncio
import signal
import sys
import threading
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

NETWORK, PORT, BATCH = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Network:
    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(NETWORK, options, providers=["CPUExecutionProvider"])
        (value,) = self.session.get_inputs()
        self.name, self.shape = value.name, value.shape[1:]
        for batch in range(1, BATCH + 1):
            self.session.run(None, {self.name: np.zeros((batch, *self.shape), np.float32)})

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.0)
    async def run(self, inputs: list[Any]) -> list[Any]:
        feeds = {self.name: np.stack(inputs)}
        # In a thread, so that the replica reads the next requests meanwhile.
        outputs = await asyncio.get_running_loop().run_in_executor(None, self.session.run, None, feeds)
        return list(outputs[0])

    async def __call__(self, request: Request) -> Response:
        x = np.frombuffer(await request.body(), np.float32).reshape(self.shape)
        output = await self.run(x)
        return Response(content=output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Network.bind(), route_prefix="/predict", logging_config={"enable_access_log": False})
    over.wait()
    serve.shutdown()
    ray.shutdown()
