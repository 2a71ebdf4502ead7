"""Encoder and decoder to ONNX, so that ONNX Runtime alone can ask them, from any language."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import nn

from rapp.graph.features import COSTS, WIDTH
from rapp.knots import Knots
from rapp.model.decoder import Decoder
from rapp.model.ensemble import EncoderEnsemble

OPSET = 18


def export_encoder(encoder: EncoderEnsemble) -> bytes:
    """ONNX of the encoder: `operators`, `costs`, `edges` -> `log_device`, `log_host` (rapp.artifact)."""
    operators, edges = 7, 6
    example = (
        torch.randn(operators, WIDTH),
        torch.rand(operators, len(COSTS)) * 1e6,
        torch.stack([torch.arange(edges), torch.arange(1, edges + 1)]),
    )
    v, e = torch.export.Dim("operators", min=1), torch.export.Dim("edges", min=0)
    return _export(
        encoder,
        example,
        ["operators", "costs", "edges"],
        ["log_device", "log_host"],
        ({0: v}, {0: v}, {1: e}),
    )


def export_decoder(knots: Knots) -> bytes:
    """ONNX of the decoder (inputs and outputs in rapp.artifact)."""
    b, s, q = knots.shape
    count = 5
    example = (
        torch.randn(b, s, q), torch.randn(b, s), torch.randn(b, s), torch.rand(b, s, q),
        torch.full((count,), 2.0), torch.full((count,), 50.0), torch.full((count,), 50.0),
        torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]), torch.tensor(0.0), torch.tensor(1.64),
    )  # fmt: skip
    n = torch.export.Dim("configurations", min=1)
    names = [
        "log_latency", "log_device", "log_host", "deviation", "batch", "sm_pct", "quota_pct", "gpu_time",
        "credit_ms", "interval_factor",
    ]  # fmt: skip
    shapes: tuple[Any, ...] = ({}, {}, {}, {}, {0: n}, {0: n}, {0: n}, {0: n}, {}, {})
    outputs = ["mean_ms", "low_ms", "high_ms", "device_ms", "host_ms"]
    return _export(Decoder(knots), example, names, outputs, shapes)


def _export(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> bytes:
    module.eval()
    # The exporter reports its passes on the terminal; what matters is checked by comparing answers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, example, input_names=inputs, output_names=outputs, dynamic_shapes=shapes,
            opset_version=OPSET, dynamo=True, verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None  # it is None only when the exporter writes the file itself
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    content: bytes = model.SerializeToString()
    return content
