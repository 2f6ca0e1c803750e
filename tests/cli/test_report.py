"""`vae report`: one page about a run, or several, that opens anywhere and is safe with a stranger's run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commandline import BRIEF, TINY, Vae
from vae_train.plotting.png import write_png

BAD = "<img src=x onerror=hacked=1>"
WORSE = "</script><script>hacked=1</script>"
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Tags with their attributes, and texts; checks that every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def curves(self) -> dict:
        return json.loads(self.scripts[0])

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def _evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("report") / "made"
    tiny = [argument for argument in TINY if not argument.startswith("epochs")]
    assert run(["train", *tiny, "epochs=3", "trainer.sample_every=1", f"out={folder}"]) == 0
    assert run(["eval", f"run={folder}", "k=5", "metrics.maps.enabled=false"]) == 0
    return folder


@pytest.fixture
def run(_evaluated: Path, tmp_path: Path) -> Path:
    """An evaluated run of three epochs with image grids of each: `made` in the current folder."""
    shutil.copytree(_evaluated, tmp_path / "made")
    return Path("made")


def written(vae: Vae, *arguments: str, at: str = "made/report.html") -> Page:
    answer = vae("report", *arguments)
    assert answer.code == 0, answer.err
    assert at in answer.out
    return Page(Path(at))


def test_the_page_says_what_came_out_and_how(vae: Vae, run: Path) -> None:
    page, report = written(vae, "run=made"), json.loads((run / "eval/test.json").read_text())
    elbo = report["elbo"]
    assert f"made reaches a test ELBO of {elbo['value']:.2f} ± {elbo['se']:.2f} nats per image" in page.text
    for text in (
        "360 test images, K = 5",
        "active latents",
        "Worst and best",
        "Latent dimensions",
        "Latent traversals",
    ):
        assert text in page.text
    assert f"{len(report['unavailable'])} metrics not available" in page.text
    assert "the data has no factors of variation" in page.text
    assert "vae reproduce run=made" in page.text
    assert "model.encoder.hidden [16]" in page.text
    assert "torch" in page.text
    assert "Left out of this page" not in page.text
    assert (
        len(page.all("img")) == 2 * 3 + 16 + 2 + len(report["plots"]) + 1
    )  # grids, examples, latents, plots, manifold
    (slider,) = [tag for tag in page.all("input") if tag["type"] == "range"]
    assert slider["max"] == "2"


def test_the_page_needs_nothing_else_and_is_accessible(vae: Vae, run: Path) -> None:
    page = written(vae, "run=made")
    addresses = [value for _, tag in page.tags for name, value in tag.items() if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/", "#")) for value in addresses)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert all(tag["alt"] for tag in page.all("img"))
    labels = {tag.get("for") for tag in page.all("label")}
    assert all(tag["id"] in labels for tag in page.all("input") if tag["type"] == "range")
    assert page.all("html")[0]["lang"] == "en"
    script = page.scripts[1]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|https?:(?!//www.w3)", script
    )


def test_the_curves_are_the_metrics(vae: Vae, run: Path) -> None:
    curves = written(vae, "run=made").curves
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for split in ("train", "valid"):
        expected = [row["elbo"] for row in rows if row["split"] == split and row["scope"] == "epoch"]
        assert curves["runs"][0][split]["elbo"] == expected
        assert curves["runs"][0][split]["epoch"] == [1, 2, 3]
    assert [metric["key"] for metric in curves["metrics"]][:4] == ["elbo", "rate", "distortion", "bits_per_dim"]
    assert "monitored" not in {metric["key"] for metric in curves["metrics"]}


def hostile(run: Path) -> Path:
    """A run in which every text that an attacker can choose is code."""
    folder = run.rename(BAD)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows += [{**rows[-1], WORSE: 1.0, "__proto__": 2.0, "elbo": float("nan"), "rate": 10**400, "epoch": 4}]
    rows += [{"step": 1, "scope": "epoch", "split": ["valid"], "epoch": "x", "elbo": BAD}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = json.loads((folder / "eval/test.json").read_text())
    report |= {
        "protocol": BAD,
        "warnings": [BAD],
        "plots": ["../../secret.png", 3],
        "unavailable": {"elbo": BAD, WORSE: BAD},
    }
    report |= {WORSE: {"value": 1, "se": None, "n": 1, "of": BAD}, "rate": {"value": "x", "se": BAD, "n": []}}
    (folder / "eval/test.json").write_text(json.dumps(report))
    (folder / f"eval/{BAD}.json").write_text(json.dumps(report))
    summary = {"status": BAD, "error": WORSE, "best_epoch": BAD, "best_elbo": [], "seconds": BAD}
    (folder / "summary.json").write_text(json.dumps(summary))
    environment = {"command": [BAD, WORSE], "packages": {BAD: BAD}, "git": BAD, "data_checksum": [BAD], "python": WORSE}
    (folder / "environment.json").write_text(json.dumps(environment))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"^name: .*", f"name: '{WORSE}'", config, flags=re.M))
    (folder / "samples/epoch-0001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return folder


def test_code_in_a_strangers_run_is_text(vae: Vae, run: Path) -> None:
    write_png(Path("secret.png"), torch.zeros(1, 4, 4))
    folder = hostile(run)
    page = written(vae, f"run='{folder}'", at=f"{folder}/report.html")
    assert not any(name.startswith("on") for _, tag in page.tags for name in tag)
    assert len(page.scripts) == 2
    assert all(tag["src"].startswith("data:image/") for tag in page.all("img"))
    assert BAD in page.text
    assert WORSE in page.text
    assert WORSE in {metric["key"] for metric in page.curves["metrics"]}
    assert page.curves["runs"][0]["train"]["elbo"][-1] is not None
    assert page.curves["runs"][0]["valid"]["elbo"][-1] is None
    assert "secret" not in page.source
    answer = vae("report", f"run=['{folder}','{folder}/']", "examples=0")
    assert answer.code == 0, answer.err


def test_a_run_without_evaluation_is_judged_by_its_validation(vae: Vae, trained: Path) -> None:
    page = written(vae, "run=made", "examples=0")
    summary = json.loads((trained / "summary.json").read_text())
    assert f"made reaches a validation ELBO of {summary['best_elbo']:.2f} nats per image, or" in page.text
    assert f"rate, nats {summary['best_rate']:.2f} validation" in page.text
    assert "run vae eval run=made first" in page.text
    assert "left out by examples=0" in page.text


def test_without_its_data_the_page_says_what_it_lacks(vae: Vae) -> None:
    np.save("x.npy", np.random.default_rng(0).random((80, 3)))
    assert vae("train", *TINY, "data=arrays", "data.path=x.npy", "batch_size=16", "out=made").code == 0
    assert "Worst" in written(vae, "run=made").text
    Path("x.npy").rename("y.npy")
    page = written(vae, "run=made")
    assert "Worst and best reconstructions, and latent dimensions: data.path" in page.text
    assert "if it moved, add data.path=" in page.text
    assert "Latent traversals" in written(vae, "run=made", "data.path=y.npy").text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "strips"),
    [
        (["model/posterior=deterministic", "objective=rae"], True),
        (["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"], False),
        (["model/posterior=categorical", "model/prior=categorical", "latent_dim=10"], False),
        (["model.condition=label"], True),
        (["corruption=denoise"], True),
    ],
)
def test_every_kind_of_model_has_a_page(vae: Vae, arguments: list[str], strips: bool) -> None:
    names = {argument.partition("=")[0] for argument in arguments}
    tiny = [argument for argument in TINY if argument.partition("=")[0] not in names]
    assert vae("train", *tiny, *arguments, "out=made").code == 0
    page = written(vae, "run=made", "split=valid", "examples=2")
    assert "images of the valid split" in page.text
    assert ("Latent traversals" in page.text) == strips


def test_runs_of_a_sweep_are_compared(vae: Vae) -> None:
    assert "vae report run=outputs/sweeps/s" in vae("train", "-m", *TINY, "beta=1,50", "sweep=s").out
    assert "vae report run=outputs/sweeps/s" in vae("eval", "run=outputs/sweeps/s", *BRIEF).out
    page = written(vae, "run=outputs/sweeps/s", at="outputs/sweeps/s/report.html")
    assert "Best of 2 runs: " in page.text
    assert "setting 0-beta=1 1-beta=50 beta 1 50" in page.text
    assert [run["name"] for run in page.curves["runs"]] == ["0-beta=1", "1-beta=50"]
    assert len([tag for tag in page.all("details") if tag.get("class") == "run"]) == 2
    answer = vae("report", "run=[outputs/sweeps/s/0,outputs/sweeps/s/1]", "examples=0")
    (path,) = Path("outputs/reports").glob("*.html")
    assert str(path) in answer.out
    assert vae("report", "run=[outputs/sweeps/s/0,outputs/sweeps/s/1]", "out=both.html", "examples=0").code == 0
    assert "2 runs" in Page(Path("both.html")).text


def test_runs_on_different_data_are_not_ranked(vae: Vae, trained: Path) -> None:
    np.save("x.npy", np.random.default_rng(0).random((80, 3)))
    assert vae("train", *TINY, "data=arrays", "data.path=x.npy", "data.valid=0", "batch_size=16", "out=other").code == 0
    assert vae("report", "run=[made,other]", "out=both.html", "examples=0").code == 0
    page = Page(Path("both.html"))
    assert "2 runs that were trained on different data; their metrics are not comparable" in page.text
    assert "other reaches a training ELBO of -" in page.text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["out=here"], "is a folder; name a file, for instance out=here/report.html"),
        (["out=page.txt"], "must end with .html, for instance out=page.html"),
        (["out=nowhere/page.html"], "nowhere is not a folder"),
        (["out=thesis.html"], "exists and is not a report"),
        (["split=all"], "train, valid, test"),
        (["run=nothing"], "no run at nothing"),
    ],
)
def test_errors_come_before_anything_is_written(vae: Vae, trained: Path, arguments: list[str], text: str) -> None:
    Path("here").mkdir()
    Path("thesis.html").write_text("<p>mine")
    (line,) = vae("report", *(["run=made"] if not arguments[0].startswith("run") else []), *arguments).errors()
    assert text in line
    assert not (trained / "report.html").exists()
    assert Path("thesis.html").read_text() == "<p>mine"


def test_a_report_replaces_an_earlier_one(vae: Vae, trained: Path) -> None:
    for _ in range(2):
        assert vae("report", "run=made", "out=page.html", "examples=0").code == 0


def test_the_training_that_goes_on_is_said_to(vae: Vae, trained: Path) -> None:
    (trained / "summary.json").write_text('{"status": "running"}')
    assert "The training is running or was killed" in written(vae, "run=made", "examples=0").text


HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const frame = document.createElement("iframe"), result = { errors: [] };
frame.style = "border: 0; width: WIDTHpx; height: 800px";
frame.onload = () => {
  const view = frame.contentWindow, page = frame.contentDocument;
  const all = (selector) => [...page.querySelectorAll(selector)];
  view.addEventListener("error", (event) => result.errors.push(event.message));
  try { STEPS } catch (error) { result.errors.push(String(error)); }
  document.body.append(Object.assign(document.createElement("pre"), { textContent: JSON.stringify(result) }));
};
frame.src = "ADDRESS";
document.body.append(frame);
</script>"""
"""A page that opens a report in a frame, uses it like a person and leaves what it saw as JSON in a <pre>."""

STEPS = """
const shown = () => all(".frame").map((frame) => frame.checkVisibility());
const slider = all("input[type=range]")[0];
result.width = page.documentElement.scrollWidth;
result.hacked = "hacked" in view;
result.curves = all("#charts path").length;
result.before = [shown(), page.querySelector("output").textContent];
slider.value = 0;
slider.dispatchEvent(new view.Event("input"));
result.after = [shown(), page.querySelector("output").textContent, slider.getAttribute("aria-valuetext")];
const ticks = () => all("#charts figure:nth-child(2) text").map((text) => text.textContent);
const linear = ticks();
all("[name=logY]")[0].click();
result.logChanges = String(ticks()) !== String(linear);
const chart = all("#charts svg")[0], box = chart.getBoundingClientRect();
const at = { clientX: box.left + 70, clientY: box.top + 50, bubbles: true };
chart.dispatchEvent(new view.PointerEvent("pointermove", at));
result.tip = all(".tip").filter((tip) => !tip.hidden).map((tip) => tip.textContent);
chart.dispatchEvent(new view.KeyboardEvent("keydown", { key: "End" }));
result.read = page.getElementById("reading").textContent;
all("#legend input")[0].click();
result.fewer = all("#charts path").length;
result.label = chart.getAttribute("aria-label");
"""


def use(path: Path, width: int) -> dict:
    """Opens a report in headless Chromium, presses what can be pressed and returns what was seen."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    address = path.absolute().as_uri()
    harness = Path("harness.html").absolute()
    harness.write_text(HARNESS.replace("WIDTH", str(width)).replace("STEPS", STEPS).replace("ADDRESS", address))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    flags += ["--virtual-time-budget=5000", "--enable-logging=stderr", f"--user-data-dir={Path('profile').absolute()}"]
    done = subprocess.run([program, *flags, harness.as_uri()], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    (found,) = re.findall(r"<pre>(.*)</pre>", done.stdout, re.S)
    return json.loads(html.unescape(found))


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_and_its_controls_work(vae: Vae, run: Path, width: int) -> None:
    written(vae, "run=made")
    seen = use(run / "report.html", width)
    assert seen["errors"] == []
    assert seen["width"] <= width
    assert seen["curves"] == 2 * 4
    assert seen["before"] == [[False, False, True], "the end of training"]
    assert seen["after"] == [[True, False, False], "epoch 1", "epoch 1"]
    assert seen["logChanges"]
    (tip,) = seen["tip"]
    assert re.fullmatch(r"epoch 1(validation|training) -[\d.]+(validation|training) -[\d.]+", tip)
    assert seen["read"].startswith("epoch 3: ")
    assert seen["fewer"] == 4
    assert seen["label"].startswith("ELBO by epoch: training from -")


def test_a_browser_runs_no_code_of_a_stranger(vae: Vae, run: Path) -> None:
    folder = hostile(run)
    assert vae("report", f"run=['{folder}','{folder}']", "out=page.html").code == 0
    seen = use(Path("page.html"), 390)
    assert seen["errors"] == []
    assert not seen["hacked"]
    assert seen["width"] <= 390


def test_the_page_of_a_run_in_steps_speaks_of_steps(vae: Vae) -> None:
    assert vae("train", *TINY[1:], "steps=70", "lr=1e-4", "out=run").code == 0
    assert vae("report", "run=run", "examples=0").code == 0
    assert "continue with: vae train resume=run steps=140" in Page(Path("run/report.html")).text
