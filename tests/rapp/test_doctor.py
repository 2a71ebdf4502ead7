"""`rapp doctor` tells ok from missing from broken, and names the command that repairs."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from rapp import doctor
from rapp.cli.doctor import print_checks
from rapp.cli.main import app
from rapp.doctor import check_cpu, check_onnxruntime, check_temporary, check_train, exit_code
from rapp.doctor_check import Check, State
from rapp.errors import MissingExtraError, RappError

ROOT = Path(__file__).parents[2]


def metadata(**versions: str) -> doctor.Installed:
    return {name.replace("_", "-"): version for name, version in versions.items()}.get


def runtime(*providers: str) -> Callable[[], ModuleType]:
    module = ModuleType("onnxruntime")
    module.get_available_providers = lambda: list(providers)  # type: ignore[attr-defined]
    return lambda: module


def failing(error: Exception) -> Callable[[], ModuleType]:
    def load() -> ModuleType:
        raise error

    return load


ABSENT = failing(MissingExtraError("ONNX Runtime", "cpu", "gpu"))
CPU = runtime("CPUExecutionProvider")
CUDA = runtime("CUDAExecutionProvider", "CPUExecutionProvider")


class TestOnnxRuntime:
    def test_one_distribution_that_loads_is_ok(self) -> None:
        check = check_onnxruntime(metadata(onnxruntime="1.20.0"), CPU, has_gpu=False)
        assert (check.state, check.action) == (State.OK, None)
        assert check.found == "onnxruntime 1.20.0; providers CPU"
        assert check.facts["providers"] == ["CPUExecutionProvider"]

    @pytest.mark.parametrize(("has_gpu", "extra"), [(False, "cpu"), (True, "gpu")])
    def test_none_is_missing_and_the_extra_fits_the_machine(self, has_gpu: bool, extra: str) -> None:
        check = check_onnxruntime(metadata(), ABSENT, has_gpu=has_gpu)
        assert (check.state, check.action) == (State.MISSING, f"pip install 'rapp[{extra}]'")

    @pytest.mark.parametrize(("has_gpu", "extra"), [(False, "cpu"), (True, "gpu")])
    @pytest.mark.parametrize("load", [CPU, CUDA, ABSENT])
    def test_two_are_a_clash_whatever_loads(
        self, load: Callable[[], ModuleType], has_gpu: bool, extra: str
    ) -> None:
        both = metadata(onnxruntime="1.20.0", onnxruntime_gpu="1.19.0")
        check = check_onnxruntime(both, load, has_gpu=has_gpu)
        assert check.state is State.PROBLEM
        assert check.found.startswith("onnxruntime 1.20.0 and onnxruntime-gpu 1.19.0 overwrite each other")
        # Taking one away takes files of the other too, so both go before the right one comes.
        expected = f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'rapp[{extra}]'"
        assert check.action == expected
        assert exit_code([check]) == 2

    def test_what_is_left_of_a_clash_is_a_problem(self) -> None:
        check = check_onnxruntime(metadata(onnxruntime_gpu="1.20.0"), CPU, has_gpu=True)
        assert (check.state, check.action) == (
            State.PROBLEM,
            "pip install --force-reinstall --no-deps onnxruntime-gpu",
        )
        check = check_onnxruntime(metadata(onnxruntime="1.20.0"), ABSENT, has_gpu=False)
        assert (check.state, check.action) == (
            State.PROBLEM,
            "pip install --force-reinstall --no-deps onnxruntime",
        )

    def test_one_that_does_not_load_is_a_problem_with_its_reason(self) -> None:
        load = failing(RappError("libcudart.so.12: cannot open"))
        check = check_onnxruntime(metadata(onnxruntime_gpu="1.20.0"), load, has_gpu=True)
        assert check.state is State.PROBLEM
        assert "libcudart.so.12" in check.found

    def test_a_gpu_beside_the_cpu_distribution_is_ok_with_a_hint(self) -> None:
        check = check_onnxruntime(metadata(onnxruntime="1.20.0"), CPU, has_gpu=True)
        assert check.state is State.OK
        assert check.action is not None
        assert "pip uninstall -y onnxruntime && pip install 'rapp[gpu]'" in check.action

    def test_one_without_metadata_is_ok_and_said_to_be(self) -> None:
        check = check_onnxruntime(metadata(), CPU, has_gpu=False)
        assert (check.state, check.found) == (State.OK, "of unknown origin; providers CPU")


class TestTrain:
    ALL: ClassVar = dict.fromkeys(doctor.TRAIN_MODULES, "1.0")

    def test_all_there_is_ok_with_every_version(self) -> None:
        check = check_train(self.ALL.get, lambda module: True)
        assert check.state is State.OK
        assert check.facts["versions"] == self.ALL

    def test_the_absent_are_named(self) -> None:
        some = {**self.ALL}
        del some["mlflow"], some["torch-geometric"]
        check = check_train(some.get, lambda module: module not in ("mlflow", "torch_geometric"))
        assert (check.state, check.action) == (State.MISSING, "pip install 'rapp[train]'")
        assert check.found == "cannot train: no torch-geometric, mlflow"

    def test_metadata_without_module_is_a_problem(self) -> None:
        check = check_train(self.ALL.get, lambda module: module != "torch")
        assert (check.state, check.action) == (State.PROBLEM, "pip install --force-reinstall torch")

    def test_the_list_is_the_extra_of_the_project(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        names = {one.partition(">")[0] for one in project["optional-dependencies"]["train"]}
        assert set(doctor.TRAIN_MODULES) == names


def test_ray_is_optional() -> None:
    assert doctor.check_ray(metadata(ray="2.60.0")).state is State.OK
    missing = doctor.check_ray(metadata())
    assert (missing.state, missing.action) == (State.MISSING, "pip install 'rapp[ray]'")


def test_cores_and_memory() -> None:
    assert check_cpu(2, 64, 24105).found == "2 of 64 cores, 24,105 MiB memory"


def test_temporary_files_are_really_written(tmp_path: Path) -> None:
    assert check_temporary(lambda: str(tmp_path)).state is State.OK
    assert list(tmp_path.iterdir()) == []
    broken = check_temporary(lambda: str(tmp_path / "absent"))
    assert broken.state is State.PROBLEM
    assert broken.action is not None
    assert "TMPDIR" in broken.action


def test_only_a_problem_gives_2() -> None:
    checks = [Check("a", State.OK, ""), Check("b", State.MISSING, "")]
    assert exit_code(checks) == 0
    assert exit_code([*checks, Check("c", State.PROBLEM, "")]) == 2


CLASH = check_onnxruntime(metadata(onnxruntime="1.20.0", onnxruntime_gpu="1.20.0"), CUDA, has_gpu=True)


class TestCommand:
    def test_a_clash_is_shown_with_its_command_and_2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "examine", lambda gpu: [CLASH])
        done = CliRunner().invoke(app, ["doctor"])
        assert done.exit_code == 2
        words = " ".join(done.output.split())
        assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'rapp[gpu]'" in words
        assert "0 ok, 0 missing, 1 to repair" in words

    def test_the_table_fits_80_columns(self, capsys: pytest.CaptureFixture[str]) -> None:
        temporary = check_temporary(lambda: "/a/very/long/folder/that/does/not/exist" * 4)
        print_checks([CLASH, temporary])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    def test_json_is_for_a_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = Check("GPU 0", State.OK, "a GPU", None, {"memory_mib": 16384})
        monkeypatch.setattr(doctor, "examine", lambda gpu: [CLASH, found])
        done = CliRunner().invoke(app, ["doctor", "--json"])
        assert done.exit_code == 2
        content = json.loads(done.stdout)
        assert [row["state"] for row in content["checks"]] == ["problem", "ok"]
        assert content["checks"][0]["action"] == CLASH.action
        assert content["checks"][1]["facts"] == {"memory_mib": 16384}

    @pytest.mark.parametrize(("option", "expected"), [([], None), (["--gpu"], True), (["--no-gpu"], False)])
    def test_the_option_says_whether_to_try_the_gpus(
        self, monkeypatch: pytest.MonkeyPatch, option: list[str], expected: bool | None
    ) -> None:
        asked: list[bool | None] = []

        def examine(gpu: bool | None) -> list[Check]:
            asked.append(gpu)
            return []

        monkeypatch.setattr(doctor, "examine", examine)
        assert CliRunner().invoke(app, ["doctor", *option]).exit_code == 0
        assert asked == [expected]

    def test_this_machine_is_told_quickly_and_without_torch(self) -> None:
        code = (
            "import sys, json; from rapp.doctor import examine; from dataclasses import asdict\n"
            "print(json.dumps([asdict(check) for check in examine()]))\n"
            "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
        )
        times_s = []
        for _ in range(3):
            before = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            times_s.append(time.perf_counter() - before)
        assert min(times_s) < 1.5
        checks = {row["name"]: row for row in json.loads(done.stdout)}
        version = importlib.metadata.version("onnxruntime")
        assert checks["onnxruntime"]["facts"]["distributions"] == {"onnxruntime": version}
        assert checks["train extra"]["state"] == "ok"
        assert re.fullmatch(r"\d+ of \d+ cores, [\d,]+ MiB memory", checks["CPU"]["found"])
        assert checks["temporary files"]["state"] == "ok"
