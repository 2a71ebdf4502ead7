"""MLflow: which store, what is sent to it; tests/rapp/cli/test_train.py sees how runs end."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapp.errors import ConfigError
from rapp.training.tracking import DEFAULT_STORE, Tracker, tracked, tracking_uri


class FakeClient:
    """Counts what would be sent."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, float, int, int]]] = []

    def log_batch(self, run_id: str, metrics: list) -> None:  # type: ignore[type-arg]
        assert run_id == "r"
        self.batches.append([(m.key, m.value, m.step, m.timestamp) for m in metrics])


def test_the_store_is_what_was_given_else_the_variable_else_a_local_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == DEFAULT_STORE == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(None) == "http://server"
    assert tracking_uri("sqlite:///x.db") == "sqlite:///x.db"


def test_losses_are_sent_in_batches_and_none_is_lost() -> None:
    client = FakeClient()
    tracker = Tracker(client, "r")
    for step in range(120):
        tracker.loss("encoder 1 of 4", step, 1 / (step + 1))
        tracker.loss("encoder 1 of 4", step, float("nan"))
    assert len(client.batches) == 2
    tracker.flush()
    tracker.flush()
    sent = [metric for batch in client.batches for metric in batch]
    assert [(key, step) for key, _, step, _ in sent] == [("loss/encoder 1 of 4", s) for s in range(120)]
    assert [value for _, value, _, _ in sent] == [1 / (s + 1) for s in range(120)]
    # The time of the step, which MLflow shows; 0 would be the year 1970.
    assert min(time for *_, time in sent) > 1_700_000_000_000


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_text("this is no database")
    for uri in ("nonsense://x", f"sqlite:///{tmp_path / 'damaged.db'}", str(tmp_path / "mlruns")):
        wanted = pytest.raises(ConfigError, match=r"MLflow cannot use the store.*--tracking")
        with wanted as caught, tracked(uri, "x", {}):
            raise AssertionError("began")
        assert "\n" not in str(caught.value)
