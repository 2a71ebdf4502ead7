"""`rapp train`, `rapp export`, `rapp tune`, `rapp ui`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.tables import console
from rapp.errors import ArtifactError, ConfigError, DataError, MissingExtraError

if TYPE_CHECKING:
    from rapp.training.dataset import TrainingSet

# torch, pandas and MLflow load inside the functions, so that `rapp --help` stays fast.

Profiles = Annotated[Path, typer.Option(help="The profile table, *.parquet.", show_default=False)]
Graphs = Annotated[Path, typer.Option(help="Folder of <network>.onnx.", show_default=False)]


def _need_extra() -> None:
    from importlib.util import find_spec

    for module, name in (("torch", "torch"), ("torch_geometric", "torch-geometric")):
        if find_spec(module) is None:
            raise MissingExtraError(name, "train")


def train(
    profiles: Profiles,
    graphs: Graphs,
    out: Annotated[
        Path, typer.Option(help="Folder of the run; the same command resumes.", show_default=False)
    ],
    split: Annotated[
        Path | None, typer.Option(help="Train on the training side of this split.", show_default=False)
    ] = None,
    fold: Annotated[int, typer.Option(min=0, help="Fold of --split.")] = 0,
    holdout: Annotated[
        str | None, typer.Option(help="Networks to leave out: a,b,c.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and --threads give the same weights.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each encoder.")] = 250,
    members: Annotated[
        int,
        typer.Option(min=1, help="Encoders of the ensemble; intervals of unseen networks need 2."),
    ] = 4,
    budget_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Lower --steps so that training takes about so long; a run that goes on keeps its steps.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Fine-tune the encoder of this run or artifact.", show_default=False)
    ] = None,
    license_id: Annotated[str, typer.Option("--license", help="SPDX licence of the profiles.")] = "unknown",
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0: all cores.")] = 0,
    tracking: Annotated[
        str | None,
        typer.Option(
            help="MLflow store; `none`: no tracking. [default: sqlite:///mlflow.db]", show_default=False
        ),
    ] = None,
) -> None:
    """Train a predictor on profiles and export it to OUT/artifact.

    A training that was stopped, by whatever, goes on where it was when the
    same command runs again.
    """
    _need_extra()
    from rapp.cli.progress import stages
    from rapp.evaluation.source import near
    from rapp.profiles import ProfileTable, Split
    from rapp.training.dataset import load_training_set
    from rapp.training.encoder_fit import EncoderSettings
    from rapp.training.run import RunSettings, recorded_steps, train_run, use_threads

    use_threads(threads)
    table = ProfileTable.read(profiles).ok()
    if split is not None:
        table = table.where(Split.load(split).select(table, fold)[0])
    left_out = {name.strip() for name in (holdout or "").split(",") if name.strip()}
    unknown = left_out - set(table.networks())
    if unknown:
        close = near(min(unknown), table.networks())
        raise ConfigError(
            f"--holdout names {', '.join(sorted(unknown))}, which the profiles do not hold{close}"
        )
    names = [name for name in table.networks() if name not in left_out]
    data = load_training_set(table, graphs, names)
    if budget_minutes is not None:
        steps = min(steps, recorded_steps(out) or _affordable(data, steps, members, budget_minutes))
    settings = RunSettings(EncoderSettings(steps=steps), seed, members, license_id, init)
    begun = time.monotonic()
    with _tracker(tracking, out.name, settings.to_dict() | {"rows": data.rows}) as tracker:
        with stages() as show:

            def report(stage: str, done: int, total: int, loss: float) -> None:
                show(stage, done, total, loss)
                if tracker:
                    tracker.loss(stage, done, loss)

            model = train_run(data, settings, out, report)
        if tracker:
            tracker.figures({f"interval_factor/{k}": v for k, v in model.interval_factors.items()})
            tracker.folder(out / "artifact", "artifact")
    minutes = (time.monotonic() - begun) / 60
    told = f"Trained on {data.rows:,} points of {len(data.names)} networks in {minutes:.1f} min"
    console().print(f"{told}: [bold]{out / 'artifact'}[/]")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `rapp train`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the artifact.", show_default=False)],
    figures: Annotated[
        Path | None, typer.Option(help="JSON of protocol figures, for the card.", show_default=False)
    ] = None,
) -> None:
    """Copy the artifact of a finished run to its place, verified."""
    from rapp.artifact import FILES, Artifact, write_artifact
    from rapp.evaluation import artifact_folder

    source = artifact_folder(run)
    if source == run and (run / "run.json").exists():
        raise ArtifactError(run, "its training has not finished: run the same `rapp train` again")
    loaded = Artifact.load(source)
    card = loaded.card
    if figures is not None:
        card = card.model_copy(update={"figures": _json_object(figures)})
    write_artifact(out, card, {name: (source / name).read_bytes() for name in FILES})
    console().print(f"Exported {len(card.networks)} networks of {card.device}: [bold]{out}[/]")


def _json_object(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(path, "is no JSON object of figures")
    return content


def tune(
    profiles: Profiles,
    graphs: Graphs,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all; earlier ones in the store count.")] = 30,
    storage: Annotated[str, typer.Option(help="Optuna store that machines may share.")] = "sqlite:///tune.db",
    study: Annotated[str, typer.Option(help="Name of the study.")] = "rapp",
    seed: Annotated[int, typer.Option(min=0, help="Of folds and sampler.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each encoder.")] = 150,
) -> None:
    """Search for better settings of the encoder; the same command resumes."""
    _need_extra()
    from rapp.profiles import ProfileTable
    from rapp.training.dataset import load_training_set
    from rapp.training.tune import tune as search

    data = load_training_set(ProfileTable.read(profiles), graphs)
    out = console()

    def told(_: object, trial: object) -> None:
        value = getattr(trial, "value", None)
        shown = f"{value:6.2f} %" if value is not None else " pruned"
        out.print(f"trial {getattr(trial, 'number', 0):3d}  {shown}  {getattr(trial, 'params', {})}")

    found = search(data, trials, seed, storage, study, steps, told)
    out.print(f"best: device time within {found.best_value:.2f} % with {found.best_params}")


def ui(
    tracking: Annotated[
        str | None, typer.Option(help="MLflow store. [default: sqlite:///mlflow.db]", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open MLflow's web interface on the trainings of this folder."""
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingExtraError("MLflow", "train")
    from rapp.training.tracking import quiet_environment, tracking_uri

    quiet_environment()
    store = tracking_uri(tracking)
    console().print(f"http://127.0.0.1:{port} shows {store}; Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def _tracker(tracking: str | None, name: str, parameters: dict[str, object]):  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    if tracking == "none":
        return nullcontext(None)
    from rapp.training.tracking import tracked, tracking_uri

    return tracked(tracking_uri(tracking), name, parameters)


def _affordable(data: TrainingSet, steps: int, members: int, minutes: float) -> int:
    """Steps that fit the budget, from the time of three of them; half a minute is kept for the rest."""
    from rapp.training.encoder_fit import EncoderSettings, fit_encoder
    from rapp.training.pipeline import fitted_curves

    begun = time.monotonic()
    curves = fitted_curves(data)
    fitting = time.monotonic() - begun
    begun = time.monotonic()
    fit_encoder(data, curves, EncoderSettings(steps=3), 0)
    step = (time.monotonic() - begun) / 3
    left = minutes * 60 - 2 * fitting - 30
    affordable = max(20, int(left / (step * members)))
    if affordable < steps:
        console().print(f"--budget-minutes {minutes:g}: {affordable} steps an encoder, not {steps}")
    return min(steps, affordable)
