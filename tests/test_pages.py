"""README.md and the pages of docs/: their links lead somewhere, and the commands that they show run.

Blocks of `bash` and `console` are run in the order of the page, in a folder with the data that they name. Trainings end
after a few steps. A block whose first line is a comment with "needs" or "takes" is not run.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.commandline import Vae
from tests.support import PACKAGE

ROOT = PACKAGE.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(bash|console)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
NOT_RUN = re.compile(r"# (needs|takes) ")
SHORT = {
    "train": [
        (r"\b(resume=\S+) epochs=\d+", r"\1 steps=8"),
        (r"\b(steps|epochs)=\d{2,}", "steps=5"),
        (r"\btrials=\d+", "trials=2"),
    ],
    "eval": [(r"\bk=\d+", "k=5")],
}
BEFORE = {
    "evaluation.md": ["vae train -m beta=1,4 steps=5 sweep=first", "vae train steps=5"],
    "runs-and-sweeps.md": ["vae train out=table-run steps=5", "vae train steps=5"],
    "models-and-objectives.md": ["vae train steps=5"],
    "using-a-model.md": ["vae train steps=9 batch_size=256 trainer.sample_every=1"],
    "report.md": [*(f"vae train steps=5 out=outputs/{name}" for name in ("sweeps/beta/0", "sweeps/beta/1", "a", "b"))],
}
"""What the reader of a page has done before."""


class Command(NamedTuple):
    text: str
    shown: str
    """The output that the page shows."""

    @property
    def words(self) -> list[str]:
        """The arguments of `vae`, of a training that takes some steps and an evaluation with few samples."""
        text = re.sub(r"^vae ", "", self.text)
        name = text.split()[0]
        for pattern, short in SHORT.get(name, []):
            text = re.sub(pattern, short, text)
        if name == "eval" and "k=" not in text:
            text += " k=5"
        if name == "fit-prior" and re.search(r"prior=(autoregressive|pixelcnn)", text):
            text += " prior.steps=5"
        if name == "train" and not re.search(r"steps=|plan=|--help|-m sweep=", text):
            text += " steps=5"
        return shlex.split(text)


def commands(page: str) -> list[Command]:
    """The `vae` commands of a page."""
    result = []
    for kind, block in BLOCK.findall(page):
        if NOT_RUN.match(block):
            continue
        for line in re.split(r"^\$ " if kind == "console" else r"\n", block.replace("\\\n", ""), flags=re.M):
            text, _, shown = line.partition("\n")
            text = re.sub(r"\s+#.*", "", text)
            if text.startswith("vae "):
                result.append(Command(text, shown))
    return result


def anchors(page: str) -> set[str]:
    """The links to sections of a page, as forges make them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photographs, signals and a table with missing values."""
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(180):
        pixels = noise.integers(0, 256, (80, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    np.save(tmp_path / "signals.npy", noise.normal(size=(180, 2, 16)).astype(np.float32))
    rows = [",".join("nan" if noise.random() < 0.1 else f"{x:.2f}" for x in noise.normal(size=3)) for _ in range(180)]
    (tmp_path / "table.csv").write_text("\n".join(["length,width,mass", *rows]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_sections(path):
    for target, section in LINK.findall(path.read_text()):
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not section or section in anchors(page.read_text()), f"{target}#{section}"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert len(text.split()) <= 900


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.name != "extending.md" and commands(p.read_text())], ids=lambda path: path.name
)
def test_commands_of_the_pages_run(path: Path, folder, capfd, request, monkeypatch):
    page, vae = path.read_text(), Vae(capfd)
    if "data=mnist" in page:
        monkeypatch.setenv("VAE_DATA", request.getfixturevalue("mnist_root"))
    before = BEFORE.get(path.name, [] if "vae train" in page else ["vae train steps=5"])
    for command in [*(Command(text, "") for text in before), *commands(page)]:
        answer = vae(*command.words)
        if "nothing was written" not in command.shown:
            assert answer.code == 0, (command.text, answer.err)
            continue
        assert answer.code == 2
        for shown, line in zip(command.shown.splitlines(), answer.err.splitlines(), strict=False):
            assert line.startswith(shown.partition("…")[0])


def test_the_python_snippet_of_the_readme_runs(folder):
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["log_p"].shape == (64,)
