"""Health and metadata of the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scaler.serving.fleet import Fleet
from scaler.serving.function import ServedFunction
from scaler.serving.infer import VERSION, unknown_model
from scaler.serving.network import Tensor
from scaler.serving.report import ready_count
from scaler.serving.respond import answer

EXTENSIONS = ("binary_tensor_data",)


class ModelRoutes:
    """The routes below `/v2` but inference.

    Args:
        fleet: what serves. version: of this server.
    """

    def __init__(self, fleet: Fleet, version: str) -> None:
        self._fleet, self._version = fleet, version

    def routes(self) -> list[Route]:
        """For Starlette."""
        listed = [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
        ]
        for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            listed += [Route(base, self._model), Route(f"{base}/ready", self._model_ready)]
        return listed

    async def _server(self, request: Request) -> Response:
        return answer({"name": "rapp", "version": self._version, "extensions": list(EXTENSIONS)})

    async def _live(self, request: Request) -> Response:
        return answer({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._fleet.is_ready
        return answer({"ready": ready}, 200 if ready else 503)

    async def _model(self, request: Request) -> Response:
        function = self._function(request)
        network = function.network
        return answer(
            {
                "name": function.spec.name,
                "versions": [VERSION],
                "platform": "onnxruntime_onnx",
                "inputs": [_metadata(one, network.batched) for one in network.inputs],
                "outputs": [_metadata(one, network.batched) for one in network.outputs],
            }
        )

    async def _model_ready(self, request: Request) -> Response:
        function = self._function(request)
        ready = ready_count(function) > 0
        return answer({"name": function.spec.name, "ready": ready}, 200 if ready else 503)

    def _function(self, request: Request) -> ServedFunction:
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        function = self._fleet.functions.get(name)
        if function is None or version != VERSION:
            raise unknown_model(name if version == VERSION else f"{name}/versions/{version}")
        return function


def _metadata(tensor: Tensor, batched: bool) -> dict[str, Any]:
    shape = [-1, *tensor.shape] if batched else list(tensor.shape)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
