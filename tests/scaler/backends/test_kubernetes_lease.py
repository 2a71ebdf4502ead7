"""The lease on a fake API server: the contract, and what client-go's rules are for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parent))

from fake_kubernetes import Answer, FakeKubernetes
from fake_kubernetes_http import served
from kubernetes import client

from scaler.backends.kubernetes_api import KubernetesApi
from scaler.backends.kubernetes_lease import KubernetesLease
from scaler.errors import BackendError
from scaler.live.lease import Lease
from scaler.testing import LeaseContract


class TestKubernetesLease(LeaseContract):
    @pytest.fixture
    def lease(self) -> Iterator[Lease]:
        self.now_s, self.state = 100.0, FakeKubernetes()
        with served(self.state) as url:
            self.api = KubernetesApi(client.ApiClient(client.Configuration(host=url)), "default")
            yield self.made()

    def made(self) -> KubernetesLease:
        return KubernetesLease(self.api, "leader", 15.0, clock=lambda: self.now_s)

    def another(self, lease: Lease) -> Lease:
        return self.made()

    def expire(self, lease: Lease) -> None:
        self.now_s += 15.0

    def test_the_object_is_as_others_read_it(self, lease: Lease) -> None:
        assert lease.lead()
        one = self.state.objects["leases"]["leader"]
        assert one["apiVersion"] == "coordination.k8s.io/v1"
        spec = one["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == (lease.holder, 15)
        assert spec["leaseTransitions"] == 0
        assert datetime.fromisoformat(spec["renewTime"]).utcoffset() == timedelta(0)
        lease.release()
        assert self.made().lead()
        assert self.state.objects["leases"]["leader"]["spec"]["leaseTransitions"] == 1

    def test_a_follower_compares_no_clocks(self, lease: Lease) -> None:
        """The leader's clock of day is an hour behind: its lease is not over before it was seen so long."""
        assert lease.lead()
        one = self.state.objects["leases"]["leader"]
        spec = {**one["spec"], "renewTime": "2020-01-01T00:00:00.000000Z"}
        self.state.put("leases", {**one, "spec": spec})
        other = self.made()
        assert not other.lead()
        self.now_s += 14.9
        assert not other.lead()
        self.now_s += 0.2
        assert other.lead()

    def test_what_others_wrote_into_it_stays(self, lease: Lease) -> None:
        assert lease.lead()
        one = self.state.objects["leases"]["leader"]
        self.state.put("leases", {**one, "metadata": {**one["metadata"], "labels": {"team": "x"}}})
        assert lease.lead()
        assert self.state.objects["leases"]["leader"]["metadata"]["labels"] == {"team": "x"}

    def test_of_two_who_take_it_at_once_one_gets_a_conflict(self, lease: Lease) -> None:
        assert lease.lead()
        self.state.faults = [Answer(409, "the object has been modified")]
        assert not lease.lead()

    def test_an_answer_that_took_long_is_of_a_lease_that_may_be_anothers(self, lease: Lease) -> None:
        times = iter([0.0, 11.0])
        slow = KubernetesLease(self.api, "leader", 15.0, clock=lambda: next(times))
        assert not slow.lead()

    def test_without_the_right_to_it_nobody_leads(self, lease: Lease) -> None:
        self.state.faults = [Answer(403, 'leases is forbidden: User "x" cannot create resource')]
        with pytest.raises(BackendError, match="403: leases is forbidden"):
            lease.lead()
