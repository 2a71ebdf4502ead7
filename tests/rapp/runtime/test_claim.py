"""A claim is exclusive while its owner lives, and everything is undone whatever becomes of the owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rapp.errors import RappError
from rapp.runtime.claim import ClaimError, GpuClaim, abandoned, claims_root, remove

UUID = "GPU-52615050-2073-7475-6220-475055203030"

OWNER = f"""
import sys, time
from pathlib import Path
from rapp.runtime.claim import GpuClaim

claim = GpuClaim("{UUID}")
claim.note(clocks_locked=True)
claim.on_release(lambda: Path(sys.argv[1]).write_text("undone"))
print("held", flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
elif sys.argv[2] == "raise":
    raise RuntimeError("a bug")
"""


def hear_signals() -> None:
    """What runs the tests may ignore hang-ups, as nohup does; its children would, too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start_owner(mark: Path, deed: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OWNER, str(mark), deed]
    owner = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=hear_signals
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    return owner


def test_one_process_holds_a_gpu_at_a_time_and_leaves_nothing(claims: Path) -> None:
    with GpuClaim(UUID):
        with pytest.raises(ClaimError, match=rf"in use by rapp process {os.getpid()}"):
            GpuClaim(UUID)
        with GpuClaim("GPU-ffeeddcc-bbaa-9988-7766-554433221100"):
            pass
        assert len(list(claims.iterdir())) == 1
    assert list(claims.iterdir()) == []
    with GpuClaim(UUID):
        pass


def test_changes_are_undone_in_reverse_once_and_all_even_if_one_fails(claims: Path) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("fails")
        raise RappError("cannot be undone")

    claim = GpuClaim(UUID)
    claim.on_release(lambda: done.append("first"))
    claim.on_release(fail)
    claim.on_release(lambda: done.append("last"))
    with pytest.raises(RappError, match="cannot be undone"):
        claim.release()
    claim.release()
    assert done == ["last", "fails", "first"]
    # What could not be undone is not forgotten.
    with pytest.raises(ClaimError, match="rapp doctor"):
        GpuClaim(UUID)
    with abandoned() as found:
        assert [state["pid"] for _, state in found] == [os.getpid()]
        remove(found[0][0])
    GpuClaim(UUID).release()


@pytest.mark.parametrize(
    ("deed", "number"), [("return", None), ("raise", None), ("wait", signal.SIGTERM), ("wait", signal.SIGHUP)]
)
def test_it_is_undone_at_the_end_however_the_owner_ends(
    claims: Path, tmp_path: Path, deed: str, number: signal.Signals | None
) -> None:
    owner = start_owner(tmp_path / "mark", deed)
    if number is not None:
        owner.send_signal(number)
    code = owner.wait(10)
    assert code == (-number if number is not None else deed == "raise")
    assert (tmp_path / "mark").read_text() == "undone"
    assert list(claims.iterdir()) == []


def test_what_a_killed_owner_left_is_found_by_the_next_and_not_before(claims: Path, tmp_path: Path) -> None:
    owner = start_owner(tmp_path / "mark", "wait")
    with abandoned() as found:
        assert found == []
    owner.kill()
    owner.wait()
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ClaimError, match="left by a process that was killed: run `rapp doctor`"):
        GpuClaim(UUID)
    with abandoned() as found:
        ((folder, state),) = found
        assert (state["pid"], state["gpu_uuid"], state["clocks_locked"]) == (owner.pid, UUID, True)
        with abandoned() as second:
            assert second == [], "it belongs to one cleaner at a time"
    with abandoned() as found:
        assert len(found) == 1, "what the block left can be found again"
        remove(folder)
    assert list(claims.iterdir()) == []


def test_a_forked_child_undoes_nothing(claims: Path) -> None:
    done: list[int] = []
    claim = GpuClaim(UUID)
    claim.on_release(lambda: done.append(os.getpid()))
    child = os.fork()
    if child == 0:
        claim.release()
        os._exit(len(done))
    assert os.waitpid(child, 0)[1] == 0
    claim.release()
    assert done == [os.getpid()]


def test_a_handler_of_the_application_is_left_alone(claims: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        ours = signal.getsignal(signal.SIGTERM)
        with GpuClaim(UUID):
            assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_that_others_can_write_or_made_is_refused(claims: Path) -> None:
    claims.chmod(0o777)
    with pytest.raises(ClaimError, match="not a private folder"):
        claims_root()
    claims.rmdir()
    claims.symlink_to("/tmp")
    with pytest.raises(ClaimError, match="not a private folder"):
        claims_root()
    claims.unlink()
    assert claims_root().stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_locked_is_a_typed_error(
    claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ClaimError, match=r"cannot be locked \(No locks available\): set TMPDIR"):
        GpuClaim(UUID)


def test_a_claim_that_cannot_be_written_down_is_given_back(
    claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RappError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("rapp.runtime.claim.atomic_path", fail)
        with pytest.raises(RappError, match="the disk is full"):
            GpuClaim(UUID)
    assert list(claims.iterdir()) == []
    GpuClaim(UUID).release()
