"""`import rapp` and `rapp --help` are quick, and load no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rapp

HEAVY = {"torch", "torch_geometric", "pandas", "mlflow", "optuna", "onnx", "onnxruntime", "pyarrow", "sympy"}

HELP = """
import sys
from rapp.cli.main import main
sys.argv = ["rapp", *{arguments}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""

REPORT = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

# Busy machines make one run slow; code that is slow is slow every time.
TRIES = 3


def python(code: str) -> tuple[str, float]:
    """Standard output of `code` in a new interpreter, and its wall time, s."""
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    assert done.returncode == 0, done.stderr
    return done.stdout, seconds


def loaded(code: str) -> set[str]:
    return set(json.loads(python(code + REPORT)[0].splitlines()[-1]))


def best_s(code: str, bare: str = "pass") -> float:
    """Best wall time of `code` beyond that of an interpreter that does nothing, s."""
    times = [python(code)[1] - python(bare)[1] for _ in range(TRIES)]
    return min(times)


def test_importing_rapp_loads_numpy_alone() -> None:
    modules = loaded("import rapp")
    assert "numpy" in modules
    third_party = modules - loaded("import numpy") - {"rapp"} - sys.stdlib_module_names
    # setuptools' finder of an editable install is the environment's, not ours.
    assert {name for name in third_party if not name.startswith("__editable__")} == set()


def test_importing_rapp_takes_less_than_half_a_second() -> None:
    assert best_s("import rapp") < 0.5


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["profiles", "--help"], ["graph", "--help"], ["doctor", "--help"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(HELP.format(arguments=arguments)) & HEAVY == set()


def test_help_takes_less_than_seven_tenths_of_a_second() -> None:
    assert best_s(HELP.format(arguments=["--help"])) < 0.7


def test_no_module_but_model_and_training_loads_torch_or_pandas() -> None:
    heavy = {"torch", "torch_geometric", "pandas", "mlflow", "optuna", "onnxruntime"}
    assert loaded(f"import {', '.join(light_modules())}") & heavy == set()


def light_modules() -> list[str]:
    package = Path(rapp.__file__).parent
    parts = [path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")]
    names = sorted(".".join(part).removesuffix(".__init__") for part in parts)
    return [name for name in names if name.split(".")[1:2] not in (["model"], ["training"])]
