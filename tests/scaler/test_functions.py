"""functions.yaml as a user writes it, rightly and wrongly."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from rapp.types import ResourceConfig
from scaler.errors import FunctionsError
from scaler.functions import FunctionsFile, functions_json_schema, read_functions


@pytest.fixture
def read(tmp_path: Path):
    """`read("- {name: a, ...}")`: the functions of a file with this list."""

    def read(functions: str, head: str = "version: 1\nfunctions:\n"):
        file = tmp_path / "functions.yaml"
        file.write_text(head + functions)
        return read_functions(file)

    return read


def test_all_keys(read, tmp_path: Path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/b.onnx").touch()
    first, second = read("""
  - name: a
    network: resnet50
    slo_ms: 60
    slo_quantile: 0.95
    max_batch: 4
    max_batch_delay_ms: 5
    queue_limit: 64
    min_instances: 0
    idle_to_zero_s: 300
    cold_start_s: 8
    memory_mib: 1024
    host_cores: 0.5
    initial: {sm_pct: 30, quota_pct: 50, batch: 2}
  - {name: b, network: nets/b.onnx, slo_multiplier: 2}
""")
    assert (first.slo_ms, first.slo_quantile, first.max_batch, first.queue_limit) == (60, 0.95, 4, 64)
    assert first.initial is not None
    assert first.initial.config == ResourceConfig(30, 50, 2)
    assert first.zero_after_s == 300
    assert first.network_file is None
    assert first.objective_ms(base_ms=7) == 60
    # A file is found from the folder of functions.yaml, not from where the program runs.
    assert second.network_file == tmp_path / "nets/b.onnx"
    assert second.network_name == "b"
    assert second.objective_ms(base_ms=7) == 14


def test_defaults_keep_one_instance(read):
    (one,) = read("  - {name: a, network: x, slo_ms: 60}")
    assert (one.slo_quantile, one.max_batch, one.max_batch_delay_ms, one.queue_limit) == (0.99, 8, 0, 1000)
    assert (one.min_instances, one.cold_start_s, one.memory_mib, one.initial) == (1, 5, None, None)
    assert one.zero_after_s is None


def test_the_minimum_of_zero_instances_is_reached_after_a_minute(read):
    (one,) = read("  - {name: a, network: x, slo_ms: 60, min_instances: 0}")
    assert one.zero_after_s == 60


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ("  - {name: a, network: x, slo_sm: 60}", "function a: unknown key 'slo_sm' (near: slo_ms"),
        ("  - {name: a, network: x, slo_ms: 9, foo: 1}", "function a: unknown key 'foo'; known are name, "),
        (
            "  - {name: a, network: x, slo_ms: 9, initial: {sm: 5, quota_pct: 5}}",
            "function a: initial: unknown key 'sm' (near: sm_pct)",
        ),
        ("  - {name: a, network: x}", "exactly one of slo_ms and slo_multiplier is needed, neither"),
        ("  - {name: a, network: x, slo_ms: 9, slo_multiplier: 2}", "slo_multiplier is needed, both"),
        ("  - {name: a, network: x, slo_ms: 0}", "function a: slo_ms: must be greater than 0, not 0"),
        ("  - {name: a, network: x, slo_ms: .nan}", "function a: slo_ms: must be a finite number"),
        ('  - {name: a, network: x, slo_ms: "60"}', "slo_ms: must be a valid number, not '60'"),
        ("  - {name: a, network: x, slo_ms: yes}", "slo_ms: must be a valid number, not True"),
        (
            "  - {name: a, network: x, slo_multiplier: 0.9}",
            "slo_multiplier: must be greater than or equal to 1",
        ),
        ("  - {name: a, network: x, slo_ms: 9, slo_quantile: 1}", "slo_quantile: must be less than 1"),
        ("  - {name: a, network: x, slo_ms: 9, max_batch: 2.5}", "max_batch: must be a valid integer"),
        ("  - {name: a, network: x, slo_ms: 9, max_batch_delay_ms: 9}", "leaves nothing of slo_ms 9"),
        ("  - {name: a, network: x, slo_ms: 9, idle_to_zero_s: 60}", "needs min_instances: 0"),
        (
            "  - {name: a, network: x, slo_ms: 9, initial: {sm_pct: 5, quota_pct: 5, batch: 9}}",
            "initial.batch 9 is above max_batch 8",
        ),
        (
            "  - {name: a, network: x, slo_ms: 9, initial: {sm_pct: 5, quota_pct: 120}}",
            "initial: quota_pct: must be less than or equal to 100, not 120",
        ),
        ("  - {name: a b, network: x, slo_ms: 9}", "function a b: name: "),
        ("  - {name: a, slo_ms: 9}", "function a: network: is missing"),
        ("  - {network: x, slo_ms: 9}", "function number 1: name: is missing"),
        ("  - {name: a, network: x.onnx, slo_ms: 9}", "function a: network: no such file: "),
        ("  - {name: a, network: x, slo_ms: 9, slo_ms: 8}", "line 3: the key 'slo_ms' is given twice"),
        (
            "  - {name: a, network: x, slo_ms: 9}\n  - {name: a, network: y, slo_ms: 9}",
            "function a: two functions have this name",
        ),
        ("  - 7", "function number 1: is no mapping"),
        ("  7", "functions: is no list"),
        ("  - [", "line 4: is not valid YAML"),
        ("  []", "Tuple should have at least 1 item"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_function_and_key(read, functions: str, message: str):
    with pytest.raises(FunctionsError) as error:
        read(functions + "\n")
    said = str(error.value)
    assert "functions.yaml: " in said
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no mapping"),
        ("version: 2\nfunctions: [{name: a, network: x, slo_ms: 9}]", "version: must be 1, not 2"),
        ("functions: [{name: a, network: x, slo_ms: 9}]", "version: is missing"),
        ("version: 1\nfunction: []", "unknown key 'function' (near: functions)"),
        ("version: 1\nfunctions: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("? [1, 2]\n: 3", "is not valid YAML"),
    ],
)
def test_a_file_that_is_none(read, content: str, message: str):
    with pytest.raises(FunctionsError) as error:
        read("", head=content)
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FunctionsError, match="cannot be read: No such file"):
        read_functions(tmp_path / "none.yaml")


def test_the_committed_json_schema_is_up_to_date():
    text = resources.files("scaler").joinpath("schemas/functions.json").read_text()
    assert json.loads(text) == functions_json_schema(), (
        "write functions_json_schema() to scaler/schemas/functions.json"
    )


def test_every_key_is_described_in_the_schema():
    for name in ("FunctionSpec", "InitialConfig"):
        for key, entry in functions_json_schema()["$defs"][name]["properties"].items():
            assert entry.get("description"), key
    assert set(functions_json_schema()["properties"]) == set(FunctionsFile.model_fields)
