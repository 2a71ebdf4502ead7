"""Files appear whole or not at all: after a failure, on a full disk, when the process is killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rapp import fileio
from rapp.errors import RappError
from rapp.fileio import atomic_folder, atomic_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], stdout=subprocess.PIPE, text=True
    )


def write_folder(target: Path, **files: str) -> None:
    with atomic_folder(target) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


class TestAtomicPath:
    def test_a_file_appears_with_its_folders_and_the_usual_permissions(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b" / "new.txt"
        with atomic_path(target) as temporary:
            temporary.write_text("all of it")
            assert not target.exists()
        assert target.read_text() == "all of it"
        plain = tmp_path / "plain"
        plain.touch()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    @pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, failure: BaseException
    ) -> None:
        target = tmp_path / "old.txt"
        target.write_text("old")
        with pytest.raises(type(failure)), atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise failure
        assert target.read_text() == "old"
        assert names(tmp_path) == ["old.txt"]

    def test_a_symbolic_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to("real")
        with atomic_path(tmp_path / "link") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"

    def test_what_is_no_regular_file_is_not_replaced(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        for name in ("pipe", "folder"):
            with pytest.raises(RappError, match="not a regular file"), atomic_path(tmp_path / name):
                pytest.fail("nothing may be written")
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

    def test_a_parent_that_is_a_file_is_an_expected_outcome(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RappError, match=r"file/x: cannot be written: "), atomic_path(tmp_path / "file/x"):
            pytest.fail("nothing may be written")

    def test_an_error_about_another_file_is_not_blamed_on_the_target(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="source"), atomic_path(tmp_path / "out"):
            (tmp_path / "source").read_text()
        assert names(tmp_path) == []


class TestAtomicFolder:
    def test_a_new_folder_takes_the_place_of_the_old(self, tmp_path: Path) -> None:
        target = tmp_path / "artifact"
        write_folder(target, card="1", gone="1")
        write_folder(target, card="2")
        assert names(target) == ["card"]
        assert (target / "card").read_text() == "2"
        assert names(tmp_path) == ["artifact"]
        (tmp_path / "plain").mkdir()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)

    def test_a_system_that_cannot_exchange_ends_with_the_same_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fileio, "_exchange", lambda *_: False)
        self.test_a_new_folder_takes_the_place_of_the_old(tmp_path)

    def test_a_failure_leaves_the_old_folder_and_nothing_else(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "artifact", card="1")
        with pytest.raises(ValueError, match="a bug"), atomic_folder(tmp_path / "artifact") as folder:
            (folder / "card").write_text("2")
            raise ValueError("a bug")
        assert (tmp_path / "artifact" / "card").read_text() == "1"
        assert names(tmp_path) == ["artifact"]

    def test_when_the_second_of_two_renames_fails_the_old_folder_comes_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "artifact"
        write_folder(target, card="1")
        monkeypatch.setattr(fileio, "_exchange", lambda *_: False)
        rename = Path.replace

        def failing(self: Path, other: Path) -> Path:
            if self.suffix == ".part" and other == target:
                raise OSError(5, "Input/output error", str(self))
            return rename(self, other)

        monkeypatch.setattr(Path, "replace", failing)
        with pytest.raises(RappError, match="Input/output error"):
            write_folder(target, card="2")
        assert (target / "card").read_text() == "1"
        assert names(tmp_path) == ["artifact"]

    def test_a_file_is_not_replaced_by_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(RappError, match="not a folder"):
            write_folder(tmp_path / "file", card="1")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_link_to_a_folder_stays_a_link(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "v1", card="1")
        (tmp_path / "current").symlink_to("v1")
        write_folder(tmp_path / "current", card="2")
        assert (tmp_path / "current").is_symlink()
        assert (tmp_path / "v1" / "card").read_text() == "2"


# The file size limit makes write(2) fail as a full disk does, with EFBIG where that has ENOSPC.
FULL_DISK = """
    import resource, signal, sys
    from rapp.errors import RappError
    from rapp.fileio import atomic_folder, atomic_path
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        if sys.argv[1] == "path":
            with atomic_path(sys.argv[2]) as temporary:
                temporary.write_bytes(b"n" * 200_000)
        else:
            with atomic_folder(sys.argv[2]) as folder:
                (folder / "card").write_bytes(b"n" * 200_000)
    except RappError as error:
        sys.exit(f"one line: {error}")
"""


@pytest.mark.parametrize("kind", ["path", "folder"])
def test_a_full_disk_is_one_line_and_leaves_the_old(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    card = target if kind == "path" else target / "card"
    card.parent.mkdir(exist_ok=True)
    card.write_text("old")
    done = run(FULL_DISK, kind, target)
    assert done.returncode == 1
    assert done.stderr.strip() == f"one line: {target}: cannot be written: File too large"
    assert card.read_text() == "old"
    assert names(tmp_path) == ["target"]


def test_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    writer = start(
        """
        import sys, time
        from rapp.fileio import atomic_path
        with atomic_path(sys.argv[1]) as temporary:
            with temporary.open("w") as file:
                file.write("half")
                file.flush()
                print("half", flush=True)
                time.sleep(60)
        """,
        target,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    writer.communicate()
    assert target.read_text() == "old"
    # What is left has a name that no reader of the folder takes for a file of ours.
    assert [name for name in names(tmp_path) if not (name.startswith(".") and name.endswith(".part"))] == [
        "target"
    ]


def test_kill_at_any_moment_leaves_a_whole_folder(tmp_path: Path) -> None:
    if not exchange_works(tmp_path):
        pytest.skip("this filesystem cannot exchange two folders in one step")
    target = tmp_path / "artifact"
    write_folder(target, a="0", b="0")
    for delay_s in (0.003, 0.005, 0.008, 0.013, 0.021):
        writer = start(
            """
            import sys
            from rapp.fileio import atomic_folder
            print("go", flush=True)
            turn = 0
            while True:
                turn += 1
                with atomic_folder(sys.argv[1]) as folder:
                    (folder / "a").write_text(str(turn))
                    (folder / "b").write_text(str(turn))
            """,
            target,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        writer.communicate()
        assert names(target) == ["a", "b"]
        assert (target / "a").read_text() == (target / "b").read_text()


def test_a_reader_never_sees_the_folder_absent(tmp_path: Path) -> None:
    if not exchange_works(tmp_path):
        pytest.skip("this filesystem cannot exchange two folders in one step")
    target = tmp_path / "artifact"
    write_folder(target, card="0")
    writer = start(
        """
        import sys
        from rapp.fileio import atomic_folder
        print("go", flush=True)
        for turn in range(200):
            with atomic_folder(sys.argv[1]) as folder:
                (folder / "card").write_text(str(turn))
        """,
        target,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    looks = 0
    while writer.poll() is None:
        looks += 1
        assert target.is_dir()
    assert looks > 100
    writer.communicate()
    assert (target / "card").read_text() == "199"


def exchange_works(folder: Path) -> bool:
    (folder / "x").mkdir()
    (folder / "y").mkdir()
    try:
        return fileio._exchange(folder / "x", folder / "y")
    finally:
        (folder / "x").rmdir()
        (folder / "y").rmdir()
