"""Tables of numbers in text files, and files whose content does not match their suffix."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from vae_train.data.storage.array_files import open_file
from vae_train.util.errors import UsageError

NAN = float("nan")
TABLES = {
    "a,b\n1,2\n3,4\n": [[1, 2], [3, 4]],
    "1,2\n3,4\n": [[1, 2], [3, 4]],
    "a;b\n1.5;2\n3;4\n": [[1.5, 2], [3, 4]],
    "a\tb\n1\t2e3\n3\t-4\n": [[1, 2000], [3, -4]],
    "mpg,name,cylinders\n18,chevrolet,8\n15,buick,8\n": [[18, 8], [15, 8]],
    "a,b\n1,\nNA,4\n?,nan\n": [[1, NAN], [NAN, 4], [NAN, NAN]],
    '"a","b"\n"1","2"\n\n': [[1, 2]],
    "\ufeffa,b\n1,2\n": [[1, 2]],
    "1,2\r\n3,4\r\n": [[1, 2], [3, 4]],
}


@pytest.mark.parametrize("text", TABLES)
def test_a_table_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    arrays, mapped = open_file(str(tmp_path / "x.csv"))
    assert not mapped
    np.testing.assert_array_equal(arrays[""], np.array(TABLES[text], np.float64))


def test_columns_of_text_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.csv").write_text("mpg,name,origin\n18,chevrolet,usa\n15,buick,usa\n")
    with caplog.at_level(logging.WARNING, "vae_train"):
        open_file(str(tmp_path / "x.csv"))
    assert "left out the text columns name, origin" in caplog.text


def test_columns_with_missing_numbers_can_be_found_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.csv").write_text("mpg,name,hp\n18,chevrolet,130\n15,buick,?\n")
    with caplog.at_level(logging.WARNING, "vae_train"):
        open_file(str(tmp_path / "x.csv"))
    assert "columns 0 (mpg), 1 (hp)" in caplog.text


def test_a_name_with_a_tilde_is_no_home_folder() -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_file("~no_such_person.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "a,b\nc,d\n", "has no numeric column"),
        ("x.csv", "1,2\n3\n", "has 1 cells in row 2, but 2 in the first"),
        ("x.npz", "<!DOCTYPE html><html>not found</html>", "is an HTML page, despite its name"),
        ("x.zip", "\n<html><body></body></html>", "is an HTML page, despite its name"),
        ("x.mat", "MATLAB 5.0", "convert it in Python: from scipy.io import loadmat"),
        ("x.pkl", "x", "convert it in Python: import pickle"),
        ("x.xlsx", "x", "is not a .npy, .npz, .pt or .csv file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        open_file(str(tmp_path / name))
