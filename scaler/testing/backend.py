"""The contract of `scaler.backends.base.Backend`.

Real instances take their time: each test orders something, and polls until it is seen or `patience_s` is
over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rapp.errors import MissingExtraError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.core.codec import observation_from_json, observation_to_json
from scaler.core.decision import Decision, Drain, Reason, Resize, Start
from scaler.core.observation import InstanceView, Observation, Phase
from scaler.testing.seen import alive, found, has_config, is_in, never_starts, new_name, order

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error

NOT_GIVEN = "the test of this backend does not say how"


class BackendContract:
    """A subclass overrides the fixture `backend`, and those of the methods below that it can.

    What runs the instances may be shared by the tests of a class: each begins by draining what is there.
    """

    function: str = "f"
    """A function that the backend serves, without load besides what `send` sends."""

    config: ResourceConfig = ResourceConfig(40.0, 40.0, 2)
    """Configuration of the instances; two of them share a row."""

    resized: tuple[float, int] = (60.0, 1)
    """Another quota, %, and batch."""

    patience_s: float = 30.0
    """Time, s of the test, in which whatever was ordered has to be seen."""

    drained_first: bool = True
    """False: nothing is drained before a test, as each has a backend of its own with nothing on it."""

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend under test."""
        raise NotImplementedError("a subclass of BackendContract overrides the fixture `backend`")

    def reopen(self, backend: Backend) -> Backend:
        """Another one for the same instances, as a controller that was restarted would open it."""
        pytest.skip(f"{NOT_GIVEN} to open {backend.name} anew")

    def send(self, backend: Backend, requests: int) -> None:
        """Have `function` answer as many requests, well before the objective is over."""
        pytest.skip(f"{NOT_GIVEN} to send {requests} requests to {backend.name}")

    def kill(self, backend: Backend, instance: str) -> None:
        """Have an instance die as if by `kill -9`."""
        pytest.skip(f"{NOT_GIVEN} to kill {instance} of {backend.name}")

    def wait(self, backend: Backend) -> None:
        """Let some time pass; a backend with a clock of its own moves it."""
        time.sleep(0.05)

    # --- what each test begins with -------------------------------------------------------------------------

    @pytest.fixture
    def there(self, backend: Backend) -> Iterator[Backend]:
        """The backend, with nothing on it."""
        if self.drained_first:
            listed = backend.observe().instances
            order(backend, *(Drain(one.id, one.function, Reason.POLICY) for one in listed))
            self._until(backend, lambda seen: not alive(seen), "what was there before is gone")
        else:
            backend.observe()
        yield backend
        backend.close()

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
        start = self._start(there)
        before = there.observe().now_s
        order(there, start)
        seen = there.observe()
        one = found(seen, start.id)
        assert one is not None, "it was ordered, and is not reported"
        assert one.phase in (Phase.STARTING, Phase.READY)
        one = self._ready(there, start.id)
        expected = (start.id, start.function, start.gpu, start.row, start.config)
        assert (one.id, one.function, one.gpu, one.row, one.config) == expected
        now_s = there.observe().now_s
        # A second for clocks that are read in whole seconds.
        assert before - 1.0 <= one.since_s <= now_s + 1.0

    def test_two_share_a_row(self, there: Backend) -> None:
        first, second = self._start(there), self._start(there)
        order(there, first, second)
        one, other = self._ready(there, first.id), self._ready(there, second.id)
        assert one.id != other.id
        assert (one.gpu, one.row, one.config) == (other.gpu, other.row, other.config)

    def test_quota_and_batch_change_without_a_restart(self, there: Backend) -> None:
        start = self._start(there)
        order(there, start)
        before = self._ready(there, start.id)
        quota_pct, batch = self.resized
        order(there, Resize(start.id, self.function, quota_pct, batch, Reason.POLICY))
        wanted = ResourceConfig(self.config.sm_pct, quota_pct, batch)
        seen = self._until(
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
        start, (quota_pct, batch) = self._start(there), self.resized
        order(there, start, Resize(start.id, self.function, quota_pct, batch, Reason.POLICY))
        wanted = ResourceConfig(self.config.sm_pct, quota_pct, batch)
        self._ready(there, start.id)
        self._until(there, lambda seen: has_config(seen, start.id, wanted), f"{start.id} has {wanted}")

    def test_what_is_drained_goes_and_was_not_lost(self, there: Backend) -> None:
        goes, stays = self._start(there), self._start(there)
        order(there, goes, stays)
        self._ready(there, goes.id)
        self._ready(there, stays.id)
        order(there, Drain(goes.id, self.function, Reason.POLICY))
        one = found(there.observe(), goes.id)
        assert one is None or one.phase == Phase.DRAINING

        def never_otherwise(seen: Observation) -> None:
            one = found(seen, goes.id)
            assert one is None or one.phase == Phase.DRAINING, one

        self._until(there, lambda seen: found(seen, goes.id) is None, f"{goes.id} is gone", never_otherwise)
        assert self._ready(there, stays.id).phase == Phase.READY

    def test_what_starts_can_be_drained(self, there: Backend) -> None:
        start = self._start(there)
        order(there, start)
        order(there, Drain(start.id, self.function, Reason.POLICY))
        self._until(there, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")

    # --- what was made already, and what cannot be made -----------------------------------------------------

    def test_changes_that_were_made_already_are_no_errors(self, there: Backend) -> None:
        start = self._start(there)
        order(there, start)
        order(there, start)
        self._ready(there, start.id)
        order(
            there,
            start,
            Resize(start.id, self.function, self.config.quota_pct, self.config.batch, Reason.POLICY),
        )
        assert [one.id for one in there.observe().instances] == [start.id]
        drain = Drain(start.id, self.function, Reason.POLICY)
        order(there, drain)
        order(there, drain)
        self._until(there, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")
        order(there, drain)

    def test_what_cannot_be_made_is_refused_with_why_and_the_rest_is_made(self, there: Backend) -> None:
        start = self._start(there)
        unknown = Start(new_name(), "no-such-function", start.gpu, start.row, self.config, Reason.POLICY)
        nowhere = Start(new_name(), self.function, "no-such-gpu", 0, self.config, Reason.POLICY)
        nothing = Resize(new_name(), self.function, *self.resized, Reason.POLICY)
        refused = there.apply(Decision((unknown, nowhere, nothing, start)))
        assert [id_ for id_, _ in refused] == [unknown.id, nowhere.id, nothing.id]
        assert all(isinstance(why, str) and why for _, why in refused)
        self._ready(there, start.id)
        assert [one.id for one in there.observe().instances] == [start.id]

    # --- what a restart of the controller sees --------------------------------------------------------------

    def test_instances_outlive_the_controller(self, there: Backend) -> None:
        start = self._start(there)
        order(there, start)
        before = self._ready(there, start.id)
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
            self._until(again, lambda seen: found(seen, start.id) is None, f"{start.id} is gone")
        finally:
            again.close()

    # --- what happens to instances --------------------------------------------------------------------------

    def test_one_that_dies_is_no_longer_live(self, there: Backend) -> None:
        start, stays = self._start(there), self._start(there)
        order(there, start, stays)
        self._ready(there, start.id)
        self._ready(there, stays.id)
        self.kill(there, start.id)
        # A backend may start it again by itself; then it is seen to start.
        self._until(
            there, lambda seen: not is_in(seen, start.id, Phase.READY), f"{start.id} is not ready any more"
        )
        assert self._ready(there, stays.id).phase == Phase.READY

    def test_each_request_is_counted_once(self, there: Backend) -> None:
        start = self._start(there)
        order(there, start)
        self._ready(there, start.id)
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

        self._until(
            there, lambda _: (arrivals, completed, requests) == (7, 7, 7), "7 requests are counted", add
        )
        assert 7 / self.config.batch <= batches <= 7
        self.wait(there)
        quiet = there.observe()
        view, one = quiet.functions[self.function], found(quiet, start.id)
        assert (view.arrivals, view.completed, view.queue, view.in_flight) == (0, 0, 0, 0)
        assert one is not None
        assert (one.batches, one.requests, one.run_ms) == (0, 0, None)

    def _start(self, backend: Backend) -> Start:
        gpu = backend.observe().gpus[0].id
        return Start(new_name(), self.function, gpu, 0, self.config, Reason.POLICY)

    def _ready(self, backend: Backend, id_: str) -> InstanceView:
        seen = self._until(backend, lambda seen: is_in(seen, id_, Phase.READY), f"{id_} is ready")
        one = found(seen, id_)
        assert one is not None
        return one

    def _until(
        self,
        backend: Backend,
        holds: Callable[[Observation], bool],
        what: str,
        each: Callable[[Observation], None] = lambda seen: None,
    ) -> Observation:
        """Observe until it holds; `each` sees every observation before."""
        end_s = time.monotonic() + self.patience_s
        while True:
            seen = backend.observe()
            each(seen)
            if holds(seen):
                return seen
            assert time.monotonic() < end_s, f"not within {self.patience_s:g} s: {what}; there is {seen}"
            self.wait(backend)
