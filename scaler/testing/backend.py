"""The contract of `scaler.backends.base.Backend`.

Real instances take their time: each test orders something, and polls until it is seen or `patience_s` is
over.
"""

from __future__ import annotations

import time

from rapp.errors import MissingExtraError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.backends.fencing import Fence, FencedError
from scaler.core.codec import observation_from_json, observation_to_json
from scaler.core.decision import Decision, Drain, Reason, Resize, Start
from scaler.core.observation import Observation, Phase
from scaler.testing.backend_case import BackendCase
from scaler.testing.seen import found, has_config, is_in, never_starts, new_name, order

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error


class BackendContract(BackendCase):
    """A subclass overrides the fixture `backend`, and those methods of `BackendCase` that it can."""

    # --- what is seen ---------------------------------------------------------------------------------------

    def test_it_has_a_name(self, backend: Backend) -> None:
        assert isinstance(backend.name, str)
        assert backend.name

    def test_an_observation_shows_the_gpus_and_the_function_and_is_json(self, there: Backend) -> None:
        seen = there.observe()
        assert self.function in seen.functions
        assert seen.gpus
        assert len({gpu.id for gpu in seen.gpus}) == len(seen.gpus)
        for gpu in seen.gpus:
            assert gpu.memory_mib > 0
            assert gpu.host_cores > 0
        assert observation_from_json(observation_to_json(seen)) == seen

    def test_its_clock_moves_forward(self, there: Backend) -> None:
        before = there.observe().now_s
        self.wait(there)
        after = there.observe().now_s
        assert after > before
        assert after - before < self.patience_s

    # --- start, resize, drain -------------------------------------------------------------------------------

    def test_what_is_started_is_seen_at_once_and_serves_as_ordered(self, there: Backend) -> None:
        start = self.started(there)
        before = there.observe().now_s
        order(there, start)
        seen = there.observe()
        one = found(seen, start.id)
        assert one is not None, "it was ordered, and is not reported"
        assert one.phase in (Phase.STARTING, Phase.READY)
        one = self.ready(there, start.id)
        expected = (start.id, start.function, start.gpu, start.row, start.config)
        assert (one.id, one.function, one.gpu, one.row, one.config) == expected
        now_s = there.observe().now_s
        # A second for clocks that are read in whole seconds.
        assert before - 1.0 <= one.since_s <= now_s + 1.0

    def test_two_share_a_row(self, there: Backend) -> None:
        first, second = self.started(there), self.started(there)
        order(there, first, second)
        one, other = self.ready(there, first.id), self.ready(there, second.id)
        assert one.id != other.id
        assert (one.gpu, one.row, one.config) == (other.gpu, other.row, other.config)

    def test_quota_and_batch_change_without_a_restart(self, there: Backend) -> None:
        start = self.started(there)
        order(there, start)
        before = self.ready(there, start.id)
        quota_pct, batch = self.resized
        order(there, Resize(start.id, self.function, quota_pct, batch, Reason.POLICY))
        wanted = ResourceConfig(self.config.sm_pct, quota_pct, batch)
        seen = self.until(
            there,
            lambda seen: has_config(seen, start.id, wanted),
            f"{start.id} has {wanted}",
            never_starts(start.id),
        )
        after = found(seen, start.id)
        assert after is not None
        assert after.phase == Phase.READY
        assert after.since_s == pytest.approx(before.since_s, abs=1e-3)

    def test_changes_are_made_in_their_order(self, there: Backend) -> None:
        start, (quota_pct, batch) = self.started(there), self.resized
        order(there, start, Resize(start.id, self.function, quota_pct, batch, Reason.POLICY))
        wanted = ResourceConfig(self.config.sm_pct, quota_pct, batch)
        self.ready(there, start.id)
        self.until(there, lambda seen: has_config(seen, start.id, wanted), f"{start.id} has {wanted}")

    def test_what_is_drained_goes_and_was_not_lost(self, there: Backend) -> None:
        goes, stays = self.started(there), self.started(there)
        order(there, goes, stays)
        self.ready(there, goes.id)
        self.ready(there, stays.id)
        order(there, Drain(goes.id, self.function, Reason.POLICY))
        one = found(there.observe(), goes.id)
        assert one is None or one.phase == Phase.DRAINING

        def never_otherwise(seen: Observation) -> None:
            one = found(seen, goes.id)
            assert one is None or one.phase == Phase.DRAINING, one

        self.until(there, lambda seen: found(seen, goes.id) is None, f"{goes.id} is gone", never_otherwise)
        assert self.ready(there, stays.id).phase == Phase.READY

    def test_what_starts_can_be_drained(self, there: Backend) -> None:
        start = self.started(there)
        order(there, start)
        order(there, Drain(start.id, self.function, Reason.POLICY))
        self.until(there, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")

    # --- what was made already, and what cannot be made -----------------------------------------------------

    def test_changes_that_were_made_already_are_no_errors(self, there: Backend) -> None:
        start = self.started(there)
        order(there, start)
        order(there, start)
        self.ready(there, start.id)
        order(
            there,
            start,
            Resize(start.id, self.function, self.config.quota_pct, self.config.batch, Reason.POLICY),
        )
        assert [one.id for one in there.observe().instances] == [start.id]
        drain = Drain(start.id, self.function, Reason.POLICY)
        order(there, drain)
        order(there, drain)
        self.until(there, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")
        order(there, drain)

    def test_what_cannot_be_made_is_refused_with_why_and_the_rest_is_made(self, there: Backend) -> None:
        start = self.started(there)
        unknown = Start(new_name(), "no-such-function", start.gpu, start.row, self.config, Reason.POLICY)
        nowhere = Start(new_name(), self.function, "no-such-gpu", 0, self.config, Reason.POLICY)
        nothing = Resize(new_name(), self.function, *self.resized, Reason.POLICY)
        refused = there.apply(Decision((unknown, nowhere, nothing, start)))
        assert [id_ for id_, _ in refused] == [unknown.id, nowhere.id, nothing.id]
        assert all(isinstance(why, str) and why for _, why in refused)
        self.ready(there, start.id)
        assert [one.id for one in there.observe().instances] == [start.id]

    # --- who may make changes -------------------------------------------------------------------------------

    def test_who_does_not_lead_any_more_makes_nothing(self, there: Backend) -> None:
        start, lost = self.started(there), Fence(1, lambda: False)
        with pytest.raises(FencedError, match="lease"):
            there.apply(Decision((start,)), lost)
        assert found(there.observe(), start.id) is None

    def test_a_later_term_shuts_out_those_before_it(self, there: Backend) -> None:
        """As of a leader that stood still, and still believes to lead when it goes on."""
        if not self.knows_terms:
            pytest.skip("of this backend nothing knows terms")
        later, start = time.time_ns() // 1000, self.started(there)
        other = self.reopen(there)
        try:
            assert other.apply(Decision(()), Fence(later, lambda: True)) == []
            with pytest.raises(FencedError, match=f"term {later - 1} .* over, {later} leads"):
                there.apply(Decision((start, self.started(there))), Fence(later - 1, lambda: True))
            assert there.observe().instances == ()
            assert other.apply(Decision((start,)), Fence(later, lambda: True)) == []
            self.ready(there, start.id)
            # Without a lease, as a person does.
            order(there, Drain(start.id, self.function, Reason.POLICY))
        finally:
            other.close()

    # --- what a restart of the controller sees --------------------------------------------------------------

    def test_instances_outlive_the_controller(self, there: Backend) -> None:
        start = self.started(there)
        order(there, start)
        before = self.ready(there, start.id)
        now_s = there.observe().now_s
        there.close()
        there.close()
        again = self.reopen(there)
        try:
            seen = again.observe()
            assert seen.now_s >= now_s
            one = found(seen, start.id)
            assert one is not None
            assert (one.function, one.gpu, one.row) == (before.function, before.gpu, before.row)
            assert (one.config, one.phase) == (before.config, Phase.READY)
            assert one.since_s == pytest.approx(before.since_s, abs=1e-3)
            order(again, Drain(start.id, self.function, Reason.POLICY))
            self.until(again, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")
        finally:
            again.close()

    # --- what happens to instances --------------------------------------------------------------------------

    def test_one_that_dies_is_no_longer_live(self, there: Backend) -> None:
        start, stays = self.started(there), self.started(there)
        order(there, start, stays)
        self.ready(there, start.id)
        self.ready(there, stays.id)
        self.kill(there, start.id)
        # A backend may start it again by itself; then it is seen to start.
        self.until(
            there, lambda seen: not is_in(seen, start.id, Phase.READY), f"{start.id} is not ready any more"
        )
        assert self.ready(there, stays.id).phase == Phase.READY

    def test_each_request_is_counted_once(self, there: Backend) -> None:
        start = self.started(there)
        order(there, start)
        self.ready(there, start.id)
        there.observe()
        self.send(there, 7)
        arrivals = completed = batches = requests = 0

        def add(seen: Observation) -> None:
            nonlocal arrivals, completed, batches, requests
            view, one = seen.functions[self.function], found(seen, start.id)
            assert one is not None
            assert view.arrivals is not None
            arrivals, completed = arrivals + view.arrivals, completed + view.completed
            batches, requests = batches + one.batches, requests + one.requests
            assert (one.run_ms is not None) == (one.batches > 0)
            assert one.run_ms is None or one.run_ms > 0

        self.until(
            there, lambda _: (arrivals, completed, requests) == (7, 7, 7), "7 requests are counted", add
        )
        assert 7 / self.config.batch <= batches <= 7
        self.wait(there)
        quiet = there.observe()
        view, one = quiet.functions[self.function], found(quiet, start.id)
        assert (view.arrivals, view.completed, view.queue, view.in_flight) == (0, 0, 0, 0)
        assert one is not None
        assert (one.batches, one.requests, one.run_ms) == (0, 0, None)

    def test_two_that_look_count_the_same(self, there: Backend) -> None:
        """A leader and the one that stands by, or whoever else looks, take no counts from each other."""
        if not self.counts_for_each:
            pytest.skip("of this backend one sees each count")
        start = self.started(there)
        order(there, start)
        self.ready(there, start.id)
        other = self.reopen(there)
        try:
            looking = {0: there, 1: other}
            for one in looking.values():
                one.observe()
            self.send(there, 7)
            counted = {0: 0, 1: 0}
            end_s = time.monotonic() + self.patience_s
            while counted != {0: 7, 1: 7}:
                for number, one in looking.items():
                    counted[number] += one.observe().functions[self.function].arrivals or 0
                assert time.monotonic() < end_s, counted
                self.wait(there)
        finally:
            other.close()
