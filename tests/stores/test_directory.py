from __future__ import annotations

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
