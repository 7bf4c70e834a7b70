from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from landline.errors import DataDirectoryError
from landline.stores.directory import Directory


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where"
    Directory(path).take()
    assert mode(path) == 0o700


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    Directory(tmp_path).take()
    assert mode(tmp_path) == 0o750


@contextmanager
def umask(value: int) -> Iterator[None]:
    """What a user's shell takes away from the modes of new files."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("value", [0, 0o077])
def test_what_is_made_is_private_whatever_the_umask_is(tmp_path: Path, value: int) -> None:
    data = tmp_path / "made" / "on the way" / "data"
    with umask(value):
        directory = Directory(data)
        directory.take()
        directory.write("secret", "x")
    assert not mode(tmp_path / "made") & 0o022
    assert not mode(tmp_path / "made" / "on the way") & 0o022
    assert (mode(data), mode(data / "secret"), mode(data / "lock")) == (0o700, 0o600, 0o600)
    assert directory.open_to_others() is None
    (data / "secret").chmod(0o644)
    directory.write("secret", "y")
    assert mode(data / "secret") == 0o600
    directory.release()


@pytest.mark.parametrize("open_to", [0o777, 0o722, 0o702, 0o1777])
def test_a_directory_that_others_may_write_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, open_to: int
) -> None:
    data = tmp_path / "data of ours"
    data.mkdir()
    data.chmod(open_to)
    with pytest.raises(DataDirectoryError, match="can be written by other users") as refused:
        Directory(data).take()
    assert list(data.iterdir()) == []
    subprocess.run(["sh", "-c", refused.value.message.partition(": ")[2]], check=True)
    directory = Directory(data)
    directory.take()
    mend = directory.open_to_others()
    assert (mend is None) == (not open_to & 0o055)
    if mend is not None:
        subprocess.run(["sh", "-c", mend], check=True)
        assert directory.open_to_others() is None
    directory.release()


@pytest.mark.parametrize(("parents_mode", "is_replaceable"), [(0o777, True), (0o1777, False), (0o755, False)])
def test_a_directory_that_others_may_put_theirs_in_the_place_of_is_known(
    tmp_path: Path, parents_mode: int, is_replaceable: bool
) -> None:
    """A sticky directory, as /tmp is, lets nobody rename what belongs to others."""
    parent = tmp_path / "shared"
    (parent / "between" / "data").mkdir(parents=True)
    parent.chmod(parents_mode)
    assert Directory(parent / "between" / "data").replaceable_in() == (parent if is_replaceable else None)


def test_a_directory_above_of_another_user_is_known(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    (tmp_path / "theirs" / "data").mkdir(parents=True)
    os.chown(tmp_path / "theirs", 4321, 4321)
    assert Directory(tmp_path / "theirs" / "data").replaceable_in() == tmp_path / "theirs"


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(data, 4321, 4321)
    tmp_path.chmod(0o755)
    take = "from pathlib import Path; from landline.stores.directory import Directory; Directory(Path('data')).take()"
    become = f"import os, landline.stores.directory; os.chdir({str(data.parent)!r}); os.setuid(1234)"
    ended = subprocess.run([sys.executable, "-c", f"{become}; {take}"], capture_output=True, text=True, check=False)
    assert "data belongs to another user: sudo chown -R 1234 data" in ended.stderr
    Directory(data).take()  # root may


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = Directory(tmp_path), Directory(tmp_path)
    first.take()
    with pytest.raises(DataDirectoryError, match="in use by another process"):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()


def test_what_is_not_a_directory_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(DataDirectoryError, match=str(path)):
        Directory(path).take()


def test_files_in_it_are_private_and_keep_what_is_in_them(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "data")
    directory.take()
    path = directory.private_file("secret")
    assert mode(path) == 0o600
    path.write_text("kept")
    assert directory.private_file("secret").read_text() == "kept"
    directory.release()


def test_a_file_that_cannot_be_made_is_a_fault_of_the_directory(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "data")
    with pytest.raises(DataDirectoryError, match="No such file"):
        directory.private_file("secret")
