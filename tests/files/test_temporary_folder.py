"""What a killed run left is deleted by the next one, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onnx_fc2conv.files import temporary_folder as module
from onnx_fc2conv.files.temporary_folder import temporary_folder
from tests.cli.conftest import MODELS, Run, run
from tests.files.test_reading import contents

__all__ = ["run"]

FACE = MODELS / "face25.onnx"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals, links and users of POSIX")

STAGING = """
import subprocess, sys
from onnx_fc2conv.files.reading import load
from onnx_fc2conv.files.staging import staged
with staged(sys.argv[2], load(sys.argv[1]), overwrite=False) as pending:
    {before}
    print(pending.parent, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def staging(out: Path, before: str = "") -> Generator[tuple[subprocess.Popen[str], Path]]:
    """A run that waits with its model written and not yet renamed; and its temporary folder."""
    with subprocess.Popen(
        [sys.executable, "-c", STAGING.format(before=before), str(FACE), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
    ) as process:
        assert process.stdout is not None
        try:
            folder = Path(process.stdout.readline().strip())
            assert folder.parent == out.parent
            yield process, folder
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with staging(tmp_path_factory.mktemp("killed") / "killed.onnx") as (process, folder):
        process.kill()
    return folder


@pytest.fixture
def left(killed: Path, tmp_path: Path) -> Path:
    """The folder that a killed run left."""
    return Path(shutil.copytree(killed, tmp_path / killed.name))


@pytest.mark.usefixtures("left")
def test_the_next_run_deletes_what_a_killed_one_left(run: Run, tmp_path: Path) -> None:
    assert run(FACE, tmp_path / "out.onnx", "--no-check").code == 0
    assert names(tmp_path) == ["out.onnx"]


def test_a_run_that_lives_keeps_its_folder(run: Run, left: Path, tmp_path: Path) -> None:
    with staging(tmp_path / "slow.onnx") as (process, folder):
        assert run(FACE, tmp_path / "quick.onnx", "--no-check").code == 0
        assert names(folder) == sorted([marker(folder).name, "slow.onnx"])
        assert not left.exists()
        process.communicate("\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["quick.onnx", "slow.onnx"]


def test_a_program_that_the_killed_run_had_started_holds_nothing(tmp_path: Path) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'input()'], close_fds=False)"
    with staging(tmp_path / "killed.onnx", f"child = {child}") as (process, folder):
        process.kill()
        process.wait()
        assert folder.exists()
        with temporary_folder(tmp_path):
            pass
        assert not list(tmp_path.iterdir())
        process.communicate("\n")  # the program waits for this


def test_runs_in_one_process_keep_their_folders(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path) as second:
        with temporary_folder(tmp_path):
            pass
        assert names(tmp_path) == sorted([first.name, second.name])
    assert not list(tmp_path.iterdir())


def test_a_folder_is_safe_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run looks before and after each step of making it."""
    looks = 0

    def look(*_: object) -> None:
        nonlocal looks
        monkeypatch.undo()
        with temporary_folder(tmp_path):
            looks += 1
        patch()

    def around(step: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            look()
            result = step(*arguments, **options)
            look()
            return result

        return call

    def patch() -> None:
        for owner, name in ((Path, "mkdir"), (Path, "open"), (module, "_lock")):
            monkeypatch.setattr(owner, name, around(getattr(owner, name)))

    patch()
    with temporary_folder(tmp_path) as folder:
        monkeypatch.undo()
        (folder / "model").write_bytes(b"new")
        with temporary_folder(tmp_path):
            pass
        assert names(folder) == sorted([marker(folder).name, "model"])
    assert looks >= 6
    assert not list(tmp_path.iterdir())


def test_many_at_once(tmp_path: Path) -> None:
    """Each makes and looks at folders all the time, some are killed in the middle."""
    code = (
        "import sys; from pathlib import Path\n"
        "from onnx_fc2conv.files.temporary_folder import temporary_folder\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    with temporary_folder(Path(sys.argv[1])) as folder:\n"
        "        (folder / 'model').write_bytes(b'whole')\n"
        "        assert (folder / 'model').read_bytes() == b'whole'\n"
        "    print(flush=True)\n"
    )

    def start(rounds: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(rounds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
        )

    workers = [start(300) for _ in range(3)]
    for rounds in range(1, 6):
        with start(1_000_000) as killed:
            assert killed.stdout is not None
            for _ in range(rounds):
                killed.stdout.readline()
            killed.kill()
    for worker in workers:
        assert worker.communicate()[1] == ""
        assert worker.returncode == 0
    with temporary_folder(tmp_path):
        pass
    # What is killed before it has a marker is empty, and stays.
    assert set(contents(tmp_path).values()) <= {b""}


def marker(folder: Path) -> Path:
    return folder / f"{folder.name}.lock"


def unmarked(folder: Path) -> None:
    """Somebody's own folder of such a name."""
    marker(folder).unlink()


def of_another_host(folder: Path) -> None:
    """The lock of the run that made it is not seen here."""
    _, device = marker(folder).read_text().split()
    marker(folder).write_text(f"01234567-89ab-cdef-0123-456789abcdef {device}\n")


def through_another_mount(folder: Path) -> None:
    """As on a file server that mounts its own export: the same host, and the lock is not seen."""
    kernel, device = marker(folder).read_text().split()
    marker(folder).write_text(f"{kernel} {int(device) + 1}\n")


def hostile(folder: Path) -> None:
    marker(folder).write_bytes(marker(folder).read_bytes() + b"\0" * 10_000_000)


def never_locked(folder: Path) -> None:
    """Killed, or still busy, between making the marker and locking it."""
    marker(folder).write_bytes(b"")


def renamed(folder: Path) -> None:
    """A copy that somebody keeps."""
    folder.rename(folder.with_name(".fc2conv-0123456789abcdef"))


def otherwise_named(folder: Path) -> None:
    marker(folder).rename(folder / "backup.lock")
    folder.rename(folder.with_name("backup"))


def a_marker_that_is_a_folder(folder: Path) -> None:
    marker(folder).unlink()
    marker(folder).mkdir()


def a_marker_that_is_a_link(folder: Path) -> None:
    marker(folder).rename(folder / "elsewhere")
    marker(folder).symlink_to(folder / "elsewhere")


def a_marker_that_is_a_pipe(folder: Path) -> None:
    marker(folder).unlink()
    os.mkfifo(marker(folder))


def a_link(folder: Path) -> None:
    """Cleaning up would follow it."""
    inner = folder.parent / "inner"
    inner.mkdir()
    folder.symlink_to(folder.rename(inner / folder.name))


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"mine")


@POSIX
@pytest.mark.parametrize(
    "change",
    [
        unmarked,
        of_another_host,
        through_another_mount,
        hostile,
        never_locked,
        renamed,
        otherwise_named,
        a_marker_that_is_a_folder,
        a_marker_that_is_a_link,
        a_marker_that_is_a_pipe,
        a_link,
        a_file,
    ],
    ids=lambda change: change.__name__,
)
def test_nothing_else_is_deleted(change: Callable[[Path], None], left: Path) -> None:
    change(left)
    before = sorted(left.parent.rglob("*"))
    with temporary_folder(left.parent):
        pass
    assert sorted(left.parent.rglob("*")) == before


@POSIX
def test_another_user_s_folder_stays(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with temporary_folder(left.parent):
        pass
    assert (left / "killed.onnx").exists()


@POSIX
def test_links_in_the_folder_are_not_followed(left: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    (left / "model").symlink_to(tmp_path / "mine")
    with temporary_folder(tmp_path):
        pass
    assert contents(tmp_path) == {"mine": b"precious"}


def test_somebody_s_folder_in_it_stays(left: Path, tmp_path: Path) -> None:
    (left / "mine").mkdir()
    (left / "mine" / "file").write_bytes(b"precious")
    with temporary_folder(tmp_path):
        pass
    assert (left / "mine" / "file").read_bytes() == b"precious"


@POSIX
@pytest.mark.parametrize("own", [True, False], ids=["own", "abandoned"])
def test_a_kill_while_a_folder_is_deleted(own: bool, tmp_path: Path) -> None:
    """Before any of its files: the next run goes on with the rest."""
    code = f"""
import os, signal, sys
from pathlib import Path
from onnx_fc2conv.files.temporary_folder import temporary_folder
count = 0
def hook(event, arguments):
    global count
    if event == "os.remove":
        count += 1
        if count > int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
with temporary_folder(Path(sys.argv[1])) as folder:
    for number in range(5):
        (folder / str(number)).touch()
    if not {own}:
        os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
"""
    clean_up = code.replace("with ", "sys.addaudithook(hook)\nwith ", 1)
    for moment in range(6):
        for program in [code] if own else [code, clean_up]:
            command = [sys.executable, "-c", program, str(tmp_path), str(moment)]
            done = subprocess.run(command, check=False, cwd=MODELS.parent, stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
        (folder,) = tmp_path.iterdir()
        assert len(names(folder)) == 6 - moment
        with temporary_folder(tmp_path):
            pass
        assert not list(tmp_path.iterdir())


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("owner", "name"), [(Path, "unlink"), (Path, "rmdir"), (os, "scandir"), (module, "_lock")]
)
def test_what_may_not_be_deleted_does_not_stop_the_run(
    owner: object, name: str, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, refuse)
    with temporary_folder(left.parent) as folder:
        (folder / "model").write_bytes(b"new")
        monkeypatch.undo()
    assert not folder.exists()
    assert left.exists()


def test_one_that_may_not_be_deleted_does_not_keep_others(left: Path, tmp_path: Path) -> None:
    stays = []
    for first in "0123456789":
        other = left.with_name(f".fc2conv-{first}bcdef0123456789")
        shutil.copytree(left, other)
        marker(other).with_name(f"{left.name}.lock").rename(marker(other))
        if int(first) % 2:
            (other / "mine").mkdir()
            stays.append(other.name)
    with temporary_folder(tmp_path):
        pass
    assert names(tmp_path) == stays


@pytest.mark.parametrize("step", ["_lock", "_kernel"])
def test_without_locks_a_folder_has_no_marker(
    step: str, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that has none, or a system that does not say which kernel runs."""
    monkeypatch.setattr(module, step, {"_lock": refuse, "_kernel": lambda: ""}[step])
    with temporary_folder(left.parent) as folder:
        assert all(not content for content in contents(folder).values())
    assert not folder.exists()
    assert left.exists()
