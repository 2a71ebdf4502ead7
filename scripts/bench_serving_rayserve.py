"""Ray Serve with one ONNX Runtime session, for scripts/bench_serving.py; runs in a venv without RaPP.

    python bench_serving_rayserve.py network.onnx PORT BATCH

The body of a request is a float32 tensor of the network's shape and nothing else, and so is the answer.
"""

import asyncio
import signal
import threading
from typing import Any

import numpy as np
import ray
from bench_serving_peer import Session, arguments
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

NETWORK, PORT, BATCH = arguments()


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Network:
    def __init__(self) -> None:
        self.session = Session(NETWORK, BATCH)

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.0)
    async def run(self, inputs: list[Any]) -> list[Any]:
        # In a thread, so that the replica reads the next requests meanwhile.
        loop = asyncio.get_running_loop()
        return list(await loop.run_in_executor(None, self.session.run, np.stack(inputs)))

    async def __call__(self, request: Request) -> Response:
        output = await self.run(self.session.sample(await request.body()))
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
