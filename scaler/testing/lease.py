"""The contract of `scaler.live.lease.Lease`."""

from __future__ import annotations

from rapp.errors import MissingExtraError
from scaler.live.lease import Lease

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error


class LeaseContract:
    """A subclass overrides the fixture `lease`, and the two methods below."""

    @pytest.fixture
    def lease(self) -> Lease:
        """A lease that nobody has yet."""
        raise NotImplementedError("a subclass of LeaseContract overrides the fixture `lease`")

    def another(self, lease: Lease) -> Lease:
        """The same lease as another process would ask for it."""
        raise NotImplementedError("a subclass of LeaseContract overrides `another`")

    def expire(self, lease: Lease) -> None:
        """Let so much time pass, for all, that what was not renewed is over."""
        raise NotImplementedError("a subclass of LeaseContract overrides `expire`")

    def test_holders_have_names_of_their_own(self, lease: Lease) -> None:
        assert lease.holder
        assert lease.holder != self.another(lease).holder

    def test_one_of_two_leads_and_goes_on_to(self, lease: Lease) -> None:
        other = self.another(lease)
        assert lease.lead()
        for _ in range(3):
            assert not other.lead()
            assert lease.lead()

    def test_whoever_releases_it_lets_the_next_one_lead_at_once(self, lease: Lease) -> None:
        other = self.another(lease)
        assert lease.lead()
        assert not other.lead()
        lease.release()
        assert other.lead()
        assert not lease.lead()
        # A second time it is not its own to release.
        lease.release()
        assert other.lead()

    def test_who_does_not_have_it_cannot_release_it(self, lease: Lease) -> None:
        other = self.another(lease)
        other.release()
        assert lease.lead()
        assert not other.lead()
        other.release()
        assert not other.lead()
        assert lease.lead()

    def test_what_is_not_renewed_is_over(self, lease: Lease) -> None:
        other = self.another(lease)
        assert lease.lead()
        assert not other.lead()
        self.expire(lease)
        assert other.lead()
        # It was away: whatever it decided before is not to be made.
        assert not lease.lead()
        assert other.lead()

    def test_terms_grow_with_each_leader(self, lease: Lease) -> None:
        other = self.another(lease)
        assert lease.duration_s == other.duration_s > 0
        assert (lease.term, other.term) == (0, 0)
        assert lease.lead()
        first = lease.term
        assert lease.lead()
        assert not other.lead()
        assert (lease.term, other.term) == (first, 0)
        assert first > 0
        self.expire(lease)
        assert other.lead()
        second = other.term
        assert not lease.lead()
        assert lease.term == 0
        other.release()
        assert other.term == 0
        assert lease.lead()
        assert first < second < lease.term

    def test_what_is_not_renewed_is_ones_own_as_long_as_nobody_takes_it(self, lease: Lease) -> None:
        assert lease.lead()
        self.expire(lease)
        assert lease.lead()

    def test_who_lost_it_is_told_even_if_it_is_free_again(self, lease: Lease) -> None:
        other = self.another(lease)
        assert lease.lead()
        assert not other.lead()
        self.expire(lease)
        assert other.lead()
        other.release()
        assert not lease.lead()
        assert lease.lead()

    def test_of_many_one_leads(self, lease: Lease) -> None:
        several = [lease, *(self.another(lease) for _ in range(4))]
        for _ in range(3):
            assert sum(one.lead() for one in several) == 1
