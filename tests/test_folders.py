"""Folders of results are complete, or do not exist."""

from pathlib import Path

import pytest

from vae_train.util.errors import RunError
from vae_train.util.folders import free_name, out_errors, results_folder


def write(folder: Path, text: str = "new", **options: bool) -> None:
    with results_folder(folder, **({"overwrite": False, "numbered": False} | options)) as results:
        (results.temporary / "file").write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with results_folder(tmp_path / "a" / "b", overwrite=False, numbered=False) as results:
        (results.temporary / "file").write_text("new")
        assert not (tmp_path / "a" / "b").exists()
    assert contents(tmp_path) == {"a/b/file": "new"}


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write(tmp_path / "a", 3)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_an_existing_folder_gets_a_number_or_is_replaced_or_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.b", "old")
    write(tmp_path / "a.b", numbered=True)
    write(tmp_path / "a.b", numbered=True)
    assert contents(tmp_path) == {"a.b/file": "old", "a.b-2/file": "new", "a.b-3/file": "new"}
    with pytest.raises(RunError, match="could not write"):
        write(tmp_path / "a.b")
    assert contents(tmp_path / "a.b") == {"file": "old"}
    (tmp_path / "a.b" / "other").write_text("old")
    write(tmp_path / "a.b", overwrite=True)
    assert contents(tmp_path / "a.b") == {"file": "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.b", "a.b-2", "a.b-3"}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a")
    assert contents(tmp_path) == {"a/file": "new"}


def test_free_names_skip_broken_links(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere")
    assert free_name(tmp_path / "a.png", ".png").name == "a-2.png"


def test_a_folder_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    def message(name: str, overwrite: bool = False) -> str:
        return " ".join(error.message for error in out_errors(str(tmp_path / name), overwrite, "marker"))

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "marker").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "link").symlink_to("full")
    assert "add overwrite=true" in message("full")
    assert not message("full", overwrite=True)
    assert "symbolic link" in message("link")
    assert "is a file" in message("full/marker")
    assert "files other than such results" in message("other", overwrite=True)
    assert not message("new/folder")
    assert out_errors(None, False, "marker") == []
