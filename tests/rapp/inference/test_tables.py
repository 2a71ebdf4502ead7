"""Curves as tables, measured points as observations, knots."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.errors import ConfigError
from rapp.inference.law import non_increasing, soft_maximum
from rapp.inference.observe import observations
from rapp.inference.posterior import Curves
from rapp.inference.tables import Tables
from rapp.knots import MAX_AXIS, Knots
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

KNOTS = Knots.around((1, 2, 4, 8), (5, 20, 50, 100), (10, 30, 60, 100))


class TestTables:
    def test_more_quota_is_never_slower_in_them(self) -> None:
        rng = np.random.default_rng(0)
        shape = KNOTS.shape
        curves = Curves(rng.normal(0, 0.1, shape[:2]), rng.normal(1, 1, shape), rng.uniform(0.1, 1, shape))
        tables = Tables.of(curves)
        assert (np.diff(tables.log_latency, axis=-1) <= 0).all()
        raw = soft_maximum(curves.log_device[..., None], curves.log_host)
        assert (np.diff(raw, axis=-1) > 0).any()
        np.testing.assert_allclose(tables.log_latency, non_increasing(raw), rtol=1e-6)
        np.testing.assert_allclose(tables.log_host, curves.log_host[..., -1], rtol=1e-6)
        assert {table.dtype for table in vars(tables).values()} == {np.dtype(np.float32)}

    def test_noise_adds_in_quadrature(self) -> None:
        shape = KNOTS.shape
        tables = Tables.of(Curves(np.zeros(shape[:2]), np.zeros(shape), np.full(shape, 0.3)))
        np.testing.assert_allclose(tables.with_noise(0.4).deviation, 0.5, rtol=1e-6)
        np.testing.assert_array_equal(tables.with_noise(0.4).log_latency, tables.log_latency)


class TestObservations:
    @staticmethod
    def law(batch, sm_pct, quota_pct, gpu_time):
        """Any law will do, as long as it is used."""
        return 3.0 * batch**0.7 / sm_pct**0.9 / quota_pct**0.5 * np.where(gpu_time, 2.0, 1.0)

    def test_a_point_on_the_knots_is_taken_as_it_is(self) -> None:
        def refuse(*_: object) -> np.ndarray:
            raise AssertionError("asked for a prediction")

        points = [
            MeasuredPoint(ResourceConfig(50, 30, 4), 12.0),
            MeasuredPoint(ResourceConfig(100, 37, 2), 7.0, QuotaKind.GPU_TIME),
        ]
        seen = observations(points, KNOTS, 5.0, refuse)
        np.testing.assert_allclose(seen.log_latency, np.log([12.0, 7.0]))
        np.testing.assert_array_equal(seen.gpu_time, [False, True])
        np.testing.assert_allclose(seen.quota_share, [0.3, 0.37])
        np.testing.assert_array_equal(KNOTS.batch[seen.batch], [4, 2])
        np.testing.assert_array_equal(KNOTS.sm_pct[seen.sm], [50, 100])
        assert seen.credit == 5.0

    def test_a_point_beside_them_moves_along_the_prediction(self) -> None:
        config = ResourceConfig(47, 33, 5)
        seen = observations([MeasuredPoint(config, 12.0)], KNOTS, 0.0, self.law)
        there = (KNOTS.batch[seen.batch], KNOTS.sm_pct[seen.sm], KNOTS.quota_pct[seen.quota])
        assert tuple(map(float, np.concatenate(there))) == (4.0, 50.0, 30.0)
        ratio = self.law(4, 50, 30, False) / self.law(5, 47, 33, False)
        assert float(np.exp(seen.log_latency[0])) == pytest.approx(12.0 * ratio)
        assert seen.quota_share[0] == pytest.approx(0.3)

    def test_a_quota_of_device_time_stays_where_it_was(self) -> None:
        point = MeasuredPoint(ResourceConfig(47, 33, 4), 12.0, QuotaKind.GPU_TIME)
        seen = observations([point], KNOTS, 0.0, self.law)
        assert seen.quota_share[0] == pytest.approx(0.33)
        assert float(np.exp(seen.log_latency[0])) == pytest.approx(12.0 * (47 / 50) ** 0.9)

    def test_no_points_are_none(self) -> None:
        assert len(observations([], KNOTS, 0.0, self.law)) == 0


class TestKnots:
    def test_hold_the_training_and_more(self) -> None:
        knots = Knots.around((3, 1), (33, 5), (20, 40))
        assert set(knots.trained_batch) == {1, 3}
        assert set(knots.trained_batch) < set(knots.batch)
        assert knots.quota_pct[-1] == 100
        np.testing.assert_array_equal(knots.trained_quota(), [0, 1])
        assert (np.diff(knots.sm_pct) > 0).all()

    def test_survive_json(self) -> None:
        import json

        again = Knots.from_dict(json.loads(json.dumps(KNOTS.to_dict())))
        for name, axis in vars(KNOTS).items():
            np.testing.assert_array_equal(getattr(again, name), axis)

    def test_nearest_is_by_ratio(self) -> None:
        b, s, q = KNOTS.nearest(5, 31, 42)
        # 31 is nearer to 20 by difference and by ratio nearer to 20 than to 50; 5 is nearer to 4 than 8.
        assert (KNOTS.batch[b], KNOTS.sm_pct[s], KNOTS.quota_pct[q]) == (4, 20, 30)
        assert KNOTS.sm_pct[KNOTS.nearest(1, 33, 10)[1]] == 50  # 33/20 > 50/33, though 13 < 17

    def test_outside_is_beyond_the_training_not_beyond_the_knots(self) -> None:
        found = KNOTS.outside([8, 9, 8, 8], [5, 5, 4.9, 5], [10, 10, 10, 9.9])
        np.testing.assert_array_equal(found, [False, True, True, True])

    def test_too_many_values_are_a_typed_error(self) -> None:
        with pytest.raises(ConfigError, match="batch"):
            Knots.around(range(1, MAX_AXIS + 2), (50,), (100,))
