"""The learned structure: covariances that are ones, arrays that survive a file."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.inference.law import soft_maximum
from rapp.inference.learn import fit_network, learn_structure
from rapp.inference.posterior import Curves, Prior
from rapp.inference.structure import Structure, default_structure, kernel

AXES = np.array([1.0, 2, 4, 8]), np.array([5.0, 20, 50, 100]), np.array([10.0, 30, 60, 100])


def matrices(structure: Structure) -> dict[str, np.ndarray]:
    named = {"device": structure.device, "shared": structure.shared, "local": structure.local}
    for i, part in enumerate(structure.variation):
        named |= {f"batch {i}": part.batch, f"sm {i}": part.sm, f"quota {i}": part.quota}
    return named


def assert_covariances(structure: Structure) -> None:
    for name, matrix in matrices(structure).items():
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12, err_msg=name)
        assert np.linalg.eigvalsh(matrix).min() > -1e-9 * (1 + matrix.max()), name


def test_the_default_has_covariances() -> None:
    assert_covariances(default_structure(*AXES))


def test_axes_of_one_value_are_enough() -> None:
    structure = default_structure(np.array([1.0]), np.array([100.0]), np.array([100.0]))
    assert_covariances(structure)
    assert structure.device.shape == (1, 1)


def test_kernel_falls_with_distance_from_one() -> None:
    found = kernel(np.array([0.0, 1.0, 3.0]), 1.0)
    assert found[0, 0] == 1.0
    assert found[0, 1] == pytest.approx(np.exp(-0.5))
    assert found[0, 2] == pytest.approx(np.exp(-4.5))


def test_arrays_bring_the_structure_back(world) -> None:
    structure = learned(world)
    arrays = structure.to_arrays()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    again = Structure.from_arrays(arrays, structure.names)
    for name, matrix in matrices(structure).items():
        np.testing.assert_allclose(matrices(again)[name], matrix, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(again.prototypes, structure.prototypes, rtol=1e-6)
    assert again.noise == pytest.approx(structure.noise)
    assert again.names == structure.names


def test_without_leaves_one_prototype_out_and_nothing_else(world) -> None:
    structure = learned(world)
    left = structure.without("b")
    assert left.names == ("a", "c")
    np.testing.assert_array_equal(left.prototypes, structure.prototypes[[0, 2]])
    np.testing.assert_array_equal(left.device, structure.device)
    assert structure.without("unknown").names == structure.names


def learned(world, spread: float = 0.1) -> Structure:
    """From three networks whose device time is off by -spread, 0 and +spread."""
    fits, priors = {}, {}
    for name, off in (("a", -spread), ("b", 0.0), ("c", spread)):
        host = np.broadcast_to(world.host + off, world.knots.shape)
        fits[name] = Curves(world.device + off, host, np.full(world.knots.shape, 0.01))
        priors[name] = Prior(world.device, world.host)
    return learn_structure(fits, priors, world.knots)


def test_learning_gives_covariances_of_the_errors_seen(world) -> None:
    structure = learned(world)
    assert_covariances(structure)
    q = world.knots.trained_quota()
    for row, off in zip(structure.prototypes, (-0.1, 0.0, 0.1), strict=True):
        np.testing.assert_allclose(row, world.host[q] + off)
    wide = learned(world, spread=1.0)
    assert np.diag(wide.device).mean() > 5 * np.diag(structure.device).mean()
    assert wide.shared.mean() > 2 * structure.shared.mean()
    # Errors were alike at all configurations: the covariance says that one point tells of all.
    correlation = wide.device[0, -1] / np.sqrt(wide.device[0, 0] * wide.device[-1, -1])
    assert correlation > 0.9


def test_one_network_is_enough_to_learn_from(world) -> None:
    curves = Curves(world.device, np.broadcast_to(world.host, world.knots.shape), np.ones(world.knots.shape))
    structure = learn_structure({"a": curves}, {"a": Prior(world.device, world.host)}, world.knots)
    assert_covariances(structure)
    assert structure.prototypes.shape == (1, 4)


def test_fitting_a_network_finds_its_curves_from_noisy_points(world) -> None:
    every = [(b, s, q) for b in (1, 2, 4, 8) for s in (5, 20, 50, 100) for q in (10, 30, 60, 100)]
    error = np.random.default_rng(0).normal(0, 0.03, len(every))
    curves = fit_network(world.measured(every, error=error), world.knots)
    places = world.knots.nearest(*np.array(every, dtype=float).T)
    found = soft_maximum(curves.log_device[..., None], curves.log_host)[places]
    truth = soft_maximum(world.device[..., None], world.host)[places]
    assert np.abs(found - truth).mean() < 0.02
    assert np.abs(found - truth).max() < 0.1
