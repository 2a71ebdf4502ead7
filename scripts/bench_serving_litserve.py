"""LitServe with one ONNX Runtime session, for scripts/bench_serving.py; runs in a venv without RaPP.

    python bench_serving_litserve.py network.onnx PORT BATCH

The body of a request is a float32 tensor of the network's shape and nothing else, and so is the answer.
LitServe reads JSON or forms by itself: the dependency below has FastAPI hand over the raw body instead.
"""

# No `from __future__ import annotations`: LitServe looks at the annotations themselves.
from typing import Annotated, Any

import litserve
import numpy as np
from bench_serving_peer import Session, arguments
from fastapi import Depends, Request, Response

NETWORK, PORT, BATCH = arguments()


async def raw_body(request: Request) -> bytes:
    return await request.body()


class Network(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = Session(NETWORK, BATCH)

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> Any:
        return self.session.sample(request)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(x if BATCH > 1 else x[None])

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> Response:
        return Response(content=output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    # fast_queue (ZeroMQ) is its faster way between the processes.
    server = litserve.LitServer(
        Network(max_batch_size=BATCH, batch_timeout=0.0), accelerator="cpu", fast_queue=True, timeout=False
    )
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
