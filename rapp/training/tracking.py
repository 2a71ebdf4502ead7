"""MLflow: parameters, loss curves, figures and the artifact of a run. A local sqlite store by default."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rapp.errors import ConfigError

EXPERIMENT = "rapp"
DEFAULT_STORE = "sqlite:///mlflow.db"


def tracking_uri(given: str | None) -> str:
    """The store: what was given, else MLFLOW_TRACKING_URI, else a sqlite file in the current folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


class Tracker:
    """One MLflow run. Losses are kept and sent in batches: a database write a step would slow training."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._waiting: list[Any] = []

    def loss(self, stage: str, step: int, value: float) -> None:
        """Note the loss of a stage at a step; NaN is no loss."""
        if value != value:
            return
        from mlflow.entities import Metric

        name = "loss/" + "".join(c if c.isalnum() or c in "-_. " else "-" for c in stage)
        self._waiting.append(Metric(name, value, int(time.time() * 1000), step))
        if len(self._waiting) >= 50:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting."""
        if self._waiting:
            self.client.log_batch(self.run_id, metrics=self._waiting)
            self._waiting = []

    def figures(self, values: dict[str, float]) -> None:
        """Log named figures."""
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value)

    def folder(self, path: Path, name: str) -> None:
        """Log a folder's files as an artifact."""
        self.client.log_artifacts(self.run_id, str(path), name)


@contextmanager
def tracked(uri: str, name: str, parameters: dict[str, Any]) -> Iterator[Tracker]:
    """An MLflow run that ends FINISHED, FAILED or (interrupted) KILLED.

    A process that is killed leaves it RUNNING; the training resumed is a run of its own.

    Raises:
        ConfigError: the store cannot be used.
    """
    client, run_id = _begun(uri, name)
    tracker = Tracker(client, run_id)
    for key, value in parameters.items():
        client.log_param(tracker.run_id, key, value)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            tracker.flush()
        finally:
            client.set_terminated(tracker.run_id, status)


def quiet_environment() -> None:
    """MLflow reports its use to its makers unless told not to; whoever wants that sets the variable."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def _begun(uri: str, name: str) -> tuple[Any, str]:
    """A client of the store, and a new run in the project's experiment."""
    quiet_environment()
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError  # of a store in a database, by way of MLflow

    # A new database tells of each of its tables.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    try:
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        return client, client.create_run(experiment, run_name=name).info.run_id
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"MLflow cannot use the store: {reason} (--tracking names another)") from error
