"""The wheel holds all of the package, and works where there is no checkout."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import rapp

ROOT = Path(__file__).parents[1]
PACKAGES = ("profiler", "rapp", "scaler")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", *PACKAGES)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a `build/` left in the checkout would put old files into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (made,) = folder.glob("rapp-*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a throw-away environment with the wheel; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    executable = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", executable, "install")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    installed_here = Path(importlib.metadata.distribution("numpy").locate_file("")).resolve()
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder named by a .pth file is searched last, and .pth files in it (an editable rapp) do not count.
    (site / "dependencies.pth").write_text(f"{installed_here}\n")
    return executable


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files


def test_the_packages_named_in_pyproject_are_those_there_are() -> None:
    there = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    named = PROJECT["tool"]["setuptools"]["packages"]
    assert {name.replace(".", "/") for name in named} == there, "name them in [tool.setuptools] packages"
    assert len(named) == len(set(named))


def test_the_version_is_one() -> None:
    assert PROJECT["project"]["version"] == rapp.__version__


def test_every_module_imports_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    # torch takes seconds to load, and the two packages that need it are tested elsewhere.
    files = [path.relative_to(ROOT) for path in (ROOT / "rapp").rglob("*.py")]
    light = [path for path in files if path.parts[1] not in ("model", "training")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in light]
    code = f"import {', '.join(names)}; print(rapp.__file__)"
    assert Path(run(python, "-c", code, cwd=tmp_path).strip()).is_relative_to(python.parents[1])


def test_the_command_and_its_data_files_work_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    assert run(python.with_name("rapp"), "--version", cwd=tmp_path) == f"rapp {rapp.__version__}\n"
    code = (
        "import importlib.resources as r; print((r.files('rapp') / 'schemas/profile_table.json').read_text())"
    )
    assert '"$schema"' in run(python, "-c", code, cwd=tmp_path)


def test_the_two_onnx_runtimes_are_extras_and_neither_is_in_the_base(wheel: Path) -> None:
    text = next(
        zipfile.ZipFile(wheel).read(name).decode()
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith("/METADATA")
    )
    needs = [line for line in text.splitlines() if line.startswith("Requires-Dist: onnxruntime")]
    assert len(needs) == 2
    assert any("onnxruntime>" in line and 'extra == "cpu"' in line for line in needs)
    assert any("onnxruntime-gpu>" in line and 'extra == "gpu"' in line for line in needs)


def test_every_requirement_of_the_test_environment_is_pinned() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#"]
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    extras = PROJECT["project"]["optional-dependencies"]
    (made,) = re.findall(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = PROJECT["project"]["dependencies"] + [one for extra in made.split(",") for one in extras[extra]]
    assert {re.split(r"[\[>]", one)[0].lower() for one in asked} <= names
