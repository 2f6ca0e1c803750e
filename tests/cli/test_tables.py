"""Tables of numbers, from the command line."""

from __future__ import annotations

from pathlib import Path

from tests.commandline import Vae


def test_missing_numbers_are_counted_by_column(tmp_path: Path, vae: Vae) -> None:
    rows = [f"{'' if i < 3 else i},{i},{'nan' if i == 5 else i}" for i in range(100)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,c", *rows]))
    (line,) = vae("train", "data=arrays", f"data.path={tmp_path}/x.csv").errors()
    assert "NaN or infinite: 3 in column 0, 1 in column 2; leave out these rows" in line


def test_a_table_is_trained_on(tmp_path: Path, vae: Vae) -> None:
    (tmp_path / "x.csv").write_text("\n".join(["a,name,c", *(f"{i},x,{2 * i}" for i in range(100))]))
    answer = vae.train("data=arrays", f"data.path={tmp_path}/x.csv", "batch_size=16", "out=run")
    assert answer.code == 0, answer.err
    assert vae("sample", "run=run", "num=2").code == 0
