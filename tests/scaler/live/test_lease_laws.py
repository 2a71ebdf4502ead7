"""Whatever several controllers do with a lease in whatever order, no two of them may lead at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.live.lease import FileLease

DURATION_S = 5.0
MEMBERS = 3

_steps = st.lists(
    st.tuples(
        st.sampled_from(["lead", "lead", "lead", "release", "die", "wait"]), st.integers(0, MEMBERS - 1)
    ),
    max_size=40,
)


class World:
    """Members that ask, end, and begin anew; and what each may believe."""

    def __init__(self, path: Path) -> None:
        self.now_s, self.path = 0.0, path
        self.members = [self._made() for _ in range(MEMBERS)]
        self.believed_until_s: dict[int, float] = {}

    def _made(self) -> FileLease:
        return FileLease(self.path, DURATION_S, clock=lambda: self.now_s, boot="a")

    def do(self, what: str, who: int) -> None:
        if what == "wait":
            self.now_s += 2.0
        elif what == "lead":
            others = [until_s for other, until_s in self.believed_until_s.items() if other != who]
            leads = self.members[who].lead()
            if leads:
                assert all(until_s <= self.now_s for until_s in others), "two lead at once"
                self.believed_until_s[who] = self.now_s + DURATION_S
            else:
                self.believed_until_s.pop(who, None)
        elif what == "release":
            self.members[who].release()
            self.believed_until_s.pop(who, None)
        else:
            # As the end of a process does: its locks go, and nothing is written.
            self.members[who]._let_go()
            self.members[who] = self._made()
            self.believed_until_s.pop(who, None)


@given(_steps)
@settings(deadline=None, max_examples=150)
def test_no_two_lead_at_once(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "lease")
        for what, who in steps:
            world.do(what, who)


@given(_steps)
@settings(deadline=None, max_examples=100)
def test_somebody_leads_once_the_others_are_quiet(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "lease")
        for what, who in steps:
            world.do(what, who)
        world.now_s += DURATION_S
        # The first answer may be to tell one that it lost it.
        assert [world.members[0].lead() for _ in range(2)][1]
