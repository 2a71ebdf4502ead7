"""What the contract of backends asks of a subclass, and how its tests order and wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rapp.errors import MissingExtraError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.core.decision import Drain, Reason, Start
from scaler.core.observation import InstanceView, Observation, Phase
from scaler.testing.seen import alive, found, is_in, new_name, order

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error

NOT_GIVEN = "the test of this backend does not say how"


class BackendCase:
    """A subclass of `BackendContract` overrides the fixture `backend`, and those methods that it can.

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

    counts_for_each: bool = True
    """False: it is one of several only that sees a count, so that no two controllers may look."""

    knows_terms: bool = True
    """False: what runs the instances cannot tell by the term of a lease who led before."""

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
            self.until(backend, lambda seen: not alive(seen), "what was there before is gone")
        else:
            backend.observe()
        yield backend
        backend.close()

    # --- how tests order and wait ---------------------------------------------------------------------------

    def started(self, backend: Backend) -> Start:
        """An instance to start, on the first GPU."""
        gpu = backend.observe().gpus[0].id
        return Start(new_name(), self.function, gpu, 0, self.config, Reason.POLICY)

    def ready(self, backend: Backend, id_: str) -> InstanceView:
        """The instance, once it is ready."""
        seen = self.until(backend, lambda seen: is_in(seen, id_, Phase.READY), f"{id_} is ready")
        one = found(seen, id_)
        assert one is not None
        return one

    def until(
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
