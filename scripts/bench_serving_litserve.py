"""LitServe with one ONNX Runtime session, for scripts/bench_serving.py; runs in a venv without RaPP.

    python bench_serving_litserve.py network.onnx PORT BATCH

The body of a request is a float32 tensor of the network's shape and nothing else, and so is the answer.
LitServe reads JSON or forms by itself: the dependency below has FastAPI hand over the raw body instead.
"""

# No `from __future__ import annotations`: LitServe looks at the annotations themselves.
import sys
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Depends, Request, Response

NETWORK, PORT, BATCH = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def raw_body(request: Request) -> bytes:
    return await request.body()


class Network(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(NETWORK, options, providers=["CPUExecutionProvider"])
        (value,) = self.session.get_inputs()
        self.name, self.shape = value.name, value.shape[1:]
        for batch in range(1, BATCH + 1):
            self.session.run(None, {self.name: np.zeros((batch, *self.shape), np.float32)})

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> Any:
        return np.frombuffer(request, np.float32).reshape(self.shape)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {self.name: x if BATCH > 1 else x[None]})[0]

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
