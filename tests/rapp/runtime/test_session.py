"""CPU sessions: right answers, the options they promise, and expected outcomes for the rest."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rapp.errors import ConfigError, DataError, MissingExtraError, RappError
from rapp.runtime import cpu_session, import_onnxruntime


def network(operator: str = "MatMul") -> onnx.ModelProto:
    """y = x W for x of shape (n, 3) and a seeded W of shape (3, 2)."""
    weight = np.random.default_rng(7).standard_normal((3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_bytes_and_file_answer_as_the_mathematics_says(tmp_path: Path) -> None:
    model = network()
    onnx.save(model, tmp_path / "network.onnx")
    weight = np.frombuffer(model.graph.initializer[0].raw_data, np.float32).reshape(3, 2)
    x = np.random.default_rng(8).standard_normal((4, 3)).astype(np.float32)
    for source in (model.SerializeToString(), tmp_path / "network.onnx", str(tmp_path / "network.onnx")):
        session = cpu_session(source)
        (y,) = session.run(None, {"x": x})
        np.testing.assert_allclose(y, x @ weight, rtol=1e-6)
        (other,) = session.run(None, {"x": 2 * x})
        assert not np.allclose(other, y)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_session_keeps_to_its_cores_and_rests_between_runs(threads: int) -> None:
    session = cpu_session(network().SerializeToString(), threads=threads)
    options = session.get_session_options()
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.use_deterministic_compute
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


def test_fewer_threads_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads is 0"):
        cpu_session(network().SerializeToString(), threads=0)


def test_what_cannot_be_run_is_named_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        cpu_session(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="a folder, not a file"):
        cpu_session(tmp_path)
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(DataError, match=r"text\.onnx: ONNX Runtime cannot load it: "):
        cpu_session(tmp_path / "text.onnx")
    with pytest.raises(
        DataError, match=r"in memory: ONNX Runtime cannot load it: .*NoSuchOperator"
    ) as caught:
        cpu_session(network("NoSuchOperator").SerializeToString())
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_both_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"rapp\[cpu\].*rapp\[gpu\]"):
        import_onnxruntime()
    with pytest.raises(MissingExtraError):
        cpu_session(b"")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers"),
        ImportError("libcudart.so.12: cannot open shared object file"),
    ],
)
def test_an_onnxruntime_that_does_not_load_leads_to_the_doctor(
    monkeypatch: pytest.MonkeyPatch, error: ImportError
) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RappError, match=r"does not load .*rapp doctor") as caught:
        import_onnxruntime()
    assert str(error) in str(caught.value)


def test_an_empty_onnxruntime_folder_leads_to_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(RappError, match=r"no InferenceSession.*rapp doctor"):
        import_onnxruntime()
