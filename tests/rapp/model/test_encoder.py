"""The encoder: what its answer must not depend on, and what it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from rapp.graph.features import GraphFeatures
from rapp.knots import Knots
from rapp.model.encoder import Block, Encoder, HostCurve, Neighbours, Variant
from rapp.model.ensemble import EncoderEnsemble
from rapp.training.batch import GraphBatch

Zoo = Callable[[str], GraphFeatures]
Random = Callable[[int, int, int], GraphFeatures]


def encoder_of(knots: Knots, variant: Variant = "rapp", seed: int = 0) -> Encoder:
    """Untrained, but with last layers that are not near zero: its answer depends on the embeddings."""
    torch.manual_seed(seed)
    encoder = Encoder(knots, hidden=16, layers=2, variant=variant)
    with torch.no_grad():
        if variant != "mlp-head":
            encoder.device_law.read[-1].weight.normal_(0, 0.5)
            encoder.launch[-1].weight.normal_(0, 0.5)
    return encoder.eval()


def ask(encoder: Encoder, *graphs: GraphFeatures) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        device, host = GraphBatch.of(graphs, encoder.variant).through(encoder)
    return device.numpy(), host.numpy()


def joined(*graphs: GraphFeatures) -> GraphFeatures:
    """One graph of several parts without an edge between them."""
    starts = np.cumsum([0, *(len(g.operators) for g in graphs)])
    return GraphFeatures(
        np.concatenate([g.operators for g in graphs]),
        np.concatenate([g.costs for g in graphs]),
        np.concatenate([g.edges + start for g, start in zip(graphs, starts, strict=False)], axis=1),
    )


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_neighbours_are_averaged_along_the_edges(flow: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3)).astype(np.float32)
    # 5 has no edge; 2 has two producers; an edge given twice counts twice.
    edges = np.array([[0, 1, 2, 2, 3, 3], [2, 2, 3, 4, 4, 4]])
    found = Neighbours(flow)(torch.from_numpy(x), torch.from_numpy(edges)).numpy()
    origin, goal = edges if flow == "source_to_target" else edges[::-1]
    for node in range(6):
        seen = x[origin[goal == node]]
        wanted = seen.mean(axis=0) if len(seen) else np.zeros(3)
        np.testing.assert_allclose(found[node], wanted, rtol=1e-5, atol=1e-6)


def test_an_operator_hears_of_its_producers_and_of_its_consumers() -> None:
    torch.manual_seed(0)
    block, x, edges = Block(4), torch.randn(3, 4), torch.tensor([[0], [1]])  # 0 produces for 1; 2 is alone
    with torch.no_grad():
        before = block(x, edges)
        for changed, hearing in (
            (0, [True, True, False]),
            (1, [True, True, False]),
            (2, [False, False, True]),
        ):
            other = x.clone()
            other[changed] += 1
            after = block(other, edges)
            assert [not torch.equal(a, b) for a, b in zip(after, before, strict=True)] == hearing
        # From a producer it hears otherwise than from a consumer.
        assert not torch.allclose(block(x, edges.flip(0)), before)


def test_the_host_curve_never_rises_with_the_quota() -> None:
    torch.manual_seed(0)
    curve = HostCurve(7)
    with torch.no_grad():
        for parameter in curve.parameters():
            parameter.normal_(0, 2)
    out = curve(torch.tensor([0.0, 0.01, 1.0, 30.0, 2000.0])).detach()
    assert out.shape == (5, 7)
    assert (out.diff(dim=1) <= 0).all()
    assert (out[:, 0] > out[:, -1]).all()
    assert HostCurve(1)(torch.ones(3)).shape == (3, 1)  # profiles without any quota


def test_the_order_of_operators_and_edges_does_not_matter(knots: Knots, random_features: Random) -> None:
    graph = random_features(30, 45, 0)
    rng = np.random.default_rng(1)
    order = rng.permutation(30)
    place = np.argsort(order)
    edges = place[graph.edges][:, rng.permutation(graph.edges.shape[1])]
    moved = GraphFeatures(graph.operators[order], graph.costs[order], edges)
    encoder = encoder_of(knots)
    for one, other in zip(ask(encoder, graph), ask(encoder, moved), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    # Moving the operators without their edges is another graph.
    broken = replace(moved, edges=graph.edges)
    assert np.abs(ask(encoder, graph)[0] - ask(encoder, broken)[0]).max() > 1e-3


@pytest.mark.parametrize("variant", get_args(Variant))
def test_graphs_in_a_batch_answer_as_alone(knots: Knots, random_features: Random, variant: Variant) -> None:
    graphs = [random_features(12, 20, 0), random_features(1, 0, 1), random_features(40, 60, 2)]
    encoder = encoder_of(knots, variant)
    device, host = ask(encoder, *graphs)
    assert device.shape == (3, *knots.shape[:2])
    assert host.shape == (3, knots.shape[2])
    assert np.isfinite(device).all()
    assert np.isfinite(host).all()
    for i, graph in enumerate(graphs):
        alone = ask(encoder, graph)
        np.testing.assert_allclose(device[i], alone[0][0], atol=2e-5)
        np.testing.assert_allclose(host[i], alone[1][0], atol=2e-5)
    assert (np.abs(device[0] - device[2]).max() > 1e-2) == (variant != "no-graph")


def test_device_time_of_a_graph_is_the_sum_over_its_parts(knots: Knots, random_features: Random) -> None:
    one, other = random_features(15, 25, 0), random_features(9, 12, 1)
    encoder = encoder_of(knots)
    times = [np.exp(ask(encoder, graph)[0][0]) for graph in (one, other, joined(one, other))]
    np.testing.assert_allclose(times[2], times[0] + times[1], rtol=1e-4)


def test_device_time_of_real_networks_falls_with_sms_and_rises_with_the_batch(
    knots: Knots, zoo_features: Zoo
) -> None:
    for seed, name in enumerate(("resnet18", "mobilenet_v3_small", "alexnet")):
        device, host = ask(encoder_of(knots, seed=seed), zoo_features(name))
        assert (np.diff(device[0], axis=1) < 1e-6).all()
        assert (np.diff(device[0], axis=0) > -1e-6).all()
        assert device[0, -1, 0] > device[0, -1, -1] + 0.7
        assert device[0, -1, -1] > device[0, 0, -1] + 0.7
        assert (np.diff(host[0]) < 0).all()


def test_what_each_variant_sees_of_the_edges(knots: Knots, random_features: Random) -> None:
    graph = random_features(20, 30, 0)
    bare = replace(graph, edges=graph.edges[:, :0])

    def differ(variant: Variant) -> bool:
        encoder = encoder_of(knots, variant)
        one, other = (ask(encoder, g)[0] for g in (graph, bare))
        return bool(np.abs(one - other).max() > 1e-4)

    assert differ("rapp")
    assert differ("mlp-head")
    assert not differ("chain")  # it knows the order of visit alone
    assert not differ("no-messages")
    assert not differ("no-graph")


def test_a_chain_joins_each_operator_to_the_next_of_its_own_graph(random_features: Random) -> None:
    batch = GraphBatch.of([random_features(n, 3, n) for n in (3, 1, 2)], "chain")
    assert batch.edges.tolist() == [[0, 1, 4], [1, 2, 5]]
    assert batch.graph.tolist() == [0, 0, 0, 1, 2, 2]


def test_an_ensemble_answers_the_mean_of_its_members_logarithms(
    knots: Knots, random_features: Random
) -> None:
    graph, members = random_features(10, 14, 3), [encoder_of(knots, seed=seed) for seed in (1, 2)]
    arrays = (torch.from_numpy(a) for a in (graph.operators, graph.costs, graph.edges))
    with torch.no_grad():
        device, host = EncoderEnsemble(members)(*arrays)
    (d1, h1), (d2, h2) = (ask(member, graph) for member in members)
    np.testing.assert_allclose(device, (d1[0] + d2[0]) / 2, atol=1e-5)
    np.testing.assert_allclose(host, (h1[0] + h2[0]) / 2, atol=1e-5)
    assert np.abs(d1 - d2).max() > 1e-2


@pytest.mark.parametrize("variant", get_args(Variant))
def test_every_weight_learns_and_no_gradient_is_lost(
    knots: Knots, random_features: Random, variant: Variant
) -> None:
    """Also of views, whose costs are zero, and of operators as large as any."""
    graphs = [random_features(12, 20, 0), random_features(1, 0, 1)]
    graphs[0].costs[:2] = [[0.0], [1e12]]
    encoder = encoder_of(knots, variant)
    device, host = GraphBatch.of(graphs, variant).through(encoder)
    (device.square().mean() + host.square().mean()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
