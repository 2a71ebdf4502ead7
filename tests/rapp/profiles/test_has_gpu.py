from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rapp.errors import ConfigError, ProfileError
from rapp.profiles import import_has_gpu, read_operator_sums
from rapp.profiles.coverage import coverage
from rapp.profiles.has_gpu import PUBLIC_GRID

LATENCY = "data/graph_features_all_models"
OPERATORS = "data/op_runtime_features_all_models"


def test_every_entry_becomes_a_row(public_folder):
    table = import_has_gpu(public_folder)
    assert table.networks() == ["alexnet", "resnet18"]
    assert len(table) == 2 * 2 * 2 * 2
    one = table.filter(network="resnet18", sm_pct=50, quota_pct=100, batch=8).arrow.to_pylist()
    known = {name: value for name, value in one[0].items() if value is not None}
    software = json.loads(known.pop("software"))
    assert known == {
        "network": "resnet18",
        "device": "NVIDIA V100-16GB",
        "runtime": "pytorch-eager",
        "precision": "fp32",
        "batch": 8,
        "sm_pct": 50.0,
        "quota_pct": 100.0,
        "quota_kind": "launch_gate",
        "idle_ms": 5.0,
        "latency_ms": 2 * 1000.0 * 8 / 150,
        "n_samples": 180,
        "derived": False,
        "status": "ok",
        "campaign_id": "has-gpu-v100",
        "anchor": False,
    }
    assert software["source"] == "https://github.com/KontonGu/RaPP"


def test_clone_and_data_folder_give_the_same_table(public_folder):
    whole = import_has_gpu(public_folder)
    assert import_has_gpu(public_folder / "data") == whole
    assert import_has_gpu(str(public_folder)) == whole


def test_the_order_of_files_does_not_matter(public_folder, tmp_path):
    """Neither where the folder lies nor the order in which its files came into it is in the table."""
    other = tmp_path / "other"
    shutil.copytree(public_folder, other)
    for file in sorted((other / LATENCY).iterdir(), reverse=True):
        text = file.read_text()
        file.unlink()
        file.write_text(text)
    assert import_has_gpu(other) == import_has_gpu(public_folder)


def test_networks_are_chosen_by_name(public_folder):
    assert import_has_gpu(public_folder, networks=["alexnet"]).networks() == ["alexnet"]
    with pytest.raises(ConfigError) as error:
        import_has_gpu(public_folder, networks=["alexnet", "resnet81", "zzz"])
    assert str(error.value) == (
        "no network 'resnet81' (near: resnet18); no network 'zzz'; there are 2, from alexnet to resnet18"
    )
    with pytest.raises(ConfigError, match="list of networks is empty"):
        import_has_gpu(public_folder, networks=[])


def test_incomplete_networks_are_kept_and_named(public_folder, caplog):
    (public_folder / LATENCY / "alexnet_50.json").unlink()
    with caplog.at_level(logging.WARNING):
        table = import_has_gpu(public_folder)
    assert len(table.filter(network="alexnet")) == 4
    assert caplog.messages[0].startswith("alexnet is incomplete: 796 of 800 points missing (")
    cover = coverage(table, PUBLIC_GRID)[0]
    assert cover.network == "alexnet"
    assert cover.measured == 4
    assert (50.0, 100.0, 8) in {(c.sm_pct, c.quota_pct, c.batch) for c in cover.missing}


def test_graph_hashes(public_folder, tmp_path, monkeypatch, caplog):
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    (graphs / "alexnet.onnx").write_bytes(b"")

    class Graph:
        @classmethod
        def from_onnx(cls, file: Path) -> SimpleNamespace:
            assert file == graphs / "alexnet.onnx"
            return SimpleNamespace(graph_hash="ab" * 32)

    monkeypatch.setattr("rapp.graph.OperatorGraph", Graph, raising=False)
    with caplog.at_level(logging.WARNING):
        table = import_has_gpu(public_folder, graphs)
    assert set(table.filter(network="alexnet").column("graph_hash")) == {"ab" * 32}
    assert set(table.filter(network="resnet18").column("graph_hash")) == {None}
    assert f"without a graph in {graphs}, so graph_hash is null: resnet18" in caplog.messages
    with pytest.raises(ConfigError, match="no such folder"):
        import_has_gpu(public_folder, tmp_path / "nowhere")


ENTRY = {"batch": 1, "sm": 50, "quota": 50, "latency": 10.0}

BAD_ENTRIES = [
    ({"latency": float("nan")}, "entry 1 (batch 1, sm 50, quota 50): latency is nan: it must be finite"),
    ({"latency": float("inf")}, "entry 1 (batch 1, sm 50, quota 50): latency is inf: it must be finite"),
    ({"latency": 0}, "entry 1 (batch 1, sm 50, quota 50): latency is 0 ms: it must be above 0"),
    ({"latency": -3.5}, "entry 1 (batch 1, sm 50, quota 50): latency is -3.5 ms: it must be above 0"),
    ({"latency": "10"}, "entry 1 (batch 1, sm 50, quota 50): latency is '10': it must be a number"),
    ({"latency": True}, "entry 1 (batch 1, sm 50, quota 50): latency is True: it must be a number"),
    ({"latency": None}, "entry 1 (batch 1, sm 50, quota 50): latency is None: it must be a number"),
    ({"latency": 10**400}, "entry 1 (batch 1, sm 50, quota 50): latency is inf: it must be finite"),
    ({"quota": 0}, "entry 1 (batch 1, sm 50, quota 0): quota must lie in (0, 100]"),
    ({"quota": 150}, "entry 1 (batch 1, sm 50, quota 150): quota must lie in (0, 100]"),
    ({"batch": 0}, "entry 1 (batch 0, sm 50, quota 50): batch must be a whole number, 1 or more"),
    ({"batch": 1.5}, "entry 1 (batch 1.5, sm 50, quota 50): batch must be a whole number, 1 or more"),
    ({"sm": 55}, "entry 1 (batch 1, sm 55, quota 50): sm must be 50, as in the file's name"),
    ({"batch": 2}, "entry 1 (batch 2, sm 50, quota 50): the same point as entry 0"),
    ({"quota": ...}, "entry 1 (batch 1, sm 50): has no quota"),
    ({"latency": ...}, "entry 1 (batch 1, sm 50, quota 50): has no latency"),
]


def _one_line(error: pytest.ExceptionInfo[ProfileError], file: Path) -> str:
    text = str(error.value)
    assert text.startswith(f"{file}: ")
    assert "\n" not in text
    return text.removeprefix(f"{file}: ")


@pytest.mark.parametrize(("change", "reason"), BAD_ENTRIES)
def test_a_bad_entry_is_named(public_folder, change, reason):
    file = public_folder / LATENCY / "alexnet_50.json"
    entry = {key: value for key, value in (ENTRY | change).items() if value is not ...}
    content = {"model_name": "alexnet", "profiling_result": [ENTRY | {"batch": 2}, entry]}
    file.write_text(json.dumps(content))
    with pytest.raises(ProfileError) as error:
        import_has_gpu(public_folder)
    assert _one_line(error, file) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"model_name": "alexnet", "profiling_result": [{"batch": 1,', "is not valid JSON, or truncated: "),
        ("", "is not valid JSON, or truncated: "),
        ("[" * 100_000, "is not valid JSON: nested too deep"),
        ("[]", "must be a JSON object"),
        ('{"profiling_result": []}', "has no model_name"),
        (
            '{"model_name": "vgg11", "profiling_result": []}',
            "model_name is 'vgg11', but the file's name says",
        ),
        ('{"model_name": "alexnet"}', "profiling_result must be a list with at least one entry"),
        (
            '{"model_name": "alexnet", "profiling_result": []}',
            "profiling_result must be a list with at least",
        ),
        ('{"model_name": "alexnet", "profiling_result": [1]}', "entry 0: is not an object"),
    ],
)
def test_a_bad_file_is_named(public_folder, text, reason):
    file = public_folder / LATENCY / "alexnet_50.json"
    file.write_text(text)
    with pytest.raises(ProfileError) as error:
        import_has_gpu(public_folder)
    assert _one_line(error, file).startswith(reason)


def test_bytes_that_are_no_text(public_folder):
    file = public_folder / LATENCY / "alexnet_50.json"
    file.write_bytes(b'{"model_name": "\xff\xfe"}')
    with pytest.raises(ProfileError, match="is not valid JSON: invalid start byte at byte 16"):
        import_has_gpu(public_folder)


@pytest.mark.parametrize(
    "name", ["alexnet.json", "alexnet_x.json", "_50.json", "alexnet_0.json", "alexnet_105.json"]
)
def test_a_file_name_without_its_sm(public_folder, name):
    shutil.copy(public_folder / LATENCY / "alexnet_50.json", public_folder / LATENCY / name)
    with pytest.raises(ProfileError, match="its name"):
        import_has_gpu(public_folder)


def test_other_files_are_left_alone(public_folder):
    whole = import_has_gpu(public_folder)
    (public_folder / LATENCY / "README.md").write_text("")
    (public_folder / LATENCY / "._alexnet_50.json").write_text("")
    assert import_has_gpu(public_folder) == whole


def test_a_folder_that_is_none_of_this(tmp_path):
    with pytest.raises(ProfileError, match="no such folder"):
        import_has_gpu(tmp_path / "nowhere")
    with pytest.raises(ProfileError, match="has no graph_features_all_models"):
        import_has_gpu(tmp_path)
    (tmp_path / LATENCY).mkdir(parents=True)
    with pytest.raises(ProfileError, match=r"holds no <network>_<sm>.json"):
        import_has_gpu(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match="is a file, not a folder"):
        import_has_gpu(tmp_path / "file")
    with pytest.raises(ProfileError, match="operator times of the public set belong there"):
        read_operator_sums(tmp_path)


def test_operator_sums(public_folder):
    assert read_operator_sums(public_folder) == {
        "alexnet": {50.0: 6.0, 100.0: 3.0},
        "resnet18": {50.0: 6.0, 100.0: 3.0},
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latency": 0}, "latency is 0 ms: it must be above 0"),
        ({"batch_size": 2}, "batch_size is 2, but the file's name says 1"),
        ({"sm_partition": 5}, "sm_partition is 5, but the file's name says 50"),
        ({"model_name": "vgg11"}, "model_name is 'vgg11', but the file's name says 'alexnet'"),
    ],
)
def test_bad_operator_sums(public_folder, change, reason):
    file = public_folder / OPERATORS / "alexnet_1_50.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ProfileError) as error:
        read_operator_sums(public_folder)
    assert _one_line(error, file) == reason


def test_operator_file_of_another_batch(public_folder):
    file = public_folder / OPERATORS / "alexnet_1_50.json"
    file.rename(file.with_name("alexnet_2_50.json"))
    with pytest.raises(ProfileError, match=r"its name is not <network>_1_<sm>.json"):
        read_operator_sums(public_folder)


def test_the_public_set(v100, v100_dir):
    """Known values of single files, and what NVIDIA's V100 would do: full SM and quota is near the best."""
    assert v100.filter(network="vgg19", batch=8, sm_pct=5, quota_pct=100).column("latency_ms")[0] > 300
    folder = v100_dir / "data" if (v100_dir / "data").is_dir() else v100_dir
    for network, sm in (("resnet50", 5), ("maxvit_t", 100)):
        text = (folder / "graph_features_all_models" / f"{network}_{sm}.json").read_text()
        entries = json.loads(text)["profiling_result"]
        points = v100.filter(sm_pct=sm).points(network)
        got = dict(zip(zip(points.batch, points.quota_pct, strict=True), points.latency_ms, strict=True))
        assert got == {(e["batch"], e["quota"]): e["latency"] for e in entries}


def test_the_public_set_is_complete_but_for_two(v100):
    missing = {cover.network: len(cover.missing) for cover in coverage(v100, PUBLIC_GRID) if cover.missing}
    assert missing == {"efficientnet_b7": 72, "regnet_y_128gf": 200}


def test_operator_sums_bound_device_time_from_above(v100, v100_dir):
    """At the smallest partition, where the device is the bottleneck, they are near the latency itself."""
    sums = read_operator_sums(v100_dir)
    ratios = []
    for network in sorted(set(sums) & set(v100.networks())):
        measured = v100.filter(network=network, batch=1, sm_pct=5, quota_pct=100).column("latency_ms")
        if measured.size:
            ratios.append(sums[network][5.0] / measured[0])
    assert 0.9 < np.median(ratios) < 1.6
