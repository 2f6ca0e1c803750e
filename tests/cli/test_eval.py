"""`vae eval`: metrics with standard errors, reasons for missing ones, several runs at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import BRIEF, TINY, Vae


def report(run: Path | str, split: str = "test") -> dict:
    return json.loads((Path(run) / "eval" / f"{split}.json").read_text())


def test_every_metric_has_its_uncertainty_and_what_it_was_measured_on(vae: Vae, trained: Path) -> None:
    answer = vae("eval", f"run={trained}", "k=200")
    assert answer.code == 0, answer.err
    found = report(trained)
    for name in ("elbo", "rate", "distortion", "bits_per_dim", "generalization_gap", "nll", "nll_bits_per_dim"):
        assert set(found[name]) >= {"value", "se", "n"}, name
        assert found[name]["se"] > 0
    assert found["nll"]["num_samples"] == 200
    assert found["nll"]["n"] == 360
    assert found["nll"]["value"] <= -found["elbo"]["value"] + 3 * found["elbo"]["se"]
    assert found["nll_bits_per_dim"]["value"] == pytest.approx(found["nll"]["value"] / 64 / np.log(2))
    assert [point["num_samples"] for point in found["nll"]["curve"]] == [1, 10, 100, 200]
    assert "200 importance samples for each of 360 images, about" in answer.out
    assert "360 images, K = 200" in answer.out
    assert "17 levels, each with its own probability" in answer.out


def test_the_table_has_every_metric_and_why_others_are_missing(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "k=0")
    text = (trained / "eval/test.md").read_text()
    assert "-log p(x), importance-weighted, bits/dim of -log p(x) (disabled by k=0)" in text
    assert f"| ELBO (beta = 1), nats | {report(trained)['elbo']['value']:.2f} ± " in text
    assert report(trained)["nll"] is None
    assert report(trained)["unavailable"]["nll"] == "disabled by k=0"
    for name in report(trained)["plots"]:
        assert f"![]({name})" in text
        assert np.array(Image.open(trained / "eval" / name)).std() > 1


def test_the_training_split_has_no_gap_to_itself(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", "k=1", "split=train", "latents=false").code == 0
    assert report(trained, "train")["generalization_gap"] is None
    assert "this is the training split" in report(trained, "train")["unavailable"]["generalization_gap"]


def test_grey_targets_have_no_bits(vae: Vae) -> None:
    vae.train("model/likelihood=bernoulli", "model.likelihood.grey_targets=true", "out=run")
    vae("eval", "run=run", *BRIEF)
    assert report("run")["bits_per_dim"] is report("run")["nll_bits_per_dim"] is None
    assert report("run")["nll"]["value"] > 0
    assert "**grey targets: not a likelihood**" in Path("run/eval/test.md").read_text()


def test_auto_chooses_by_the_time(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "minutes=1e-6", "latents=false")
    assert report(trained)["nll"]["num_samples"] == 100


@pytest.mark.parametrize(
    ("k", "why"),
    [("-1", "one of auto or at least 0"), ("half", "one of auto or a whole number"), ("1.5", "auto or a whole number")],
)
def test_a_number_of_draws_is_checked(vae: Vae, trained: Path, k: str, why: str) -> None:
    (line,) = vae("eval", f"run={trained}", f"k={k}").errors()
    assert why in line


def test_the_batch_size_changes_rounding_only(vae: Vae, trained: Path) -> None:
    found = []
    for size in (512, 33):
        vae("eval", f"run={trained}", f"batch_size={size}", "k=20")
        found.append(report(trained))
    for name in ("elbo", "nll", "generalization_gap", "mutual_information", "total_correlation"):
        assert found[0][name]["value"] == pytest.approx(found[1][name]["value"], abs=1e-3)


def test_a_folder_of_runs_is_scored_as_a_table(vae: Vae) -> None:
    vae("train", "-m", *TINY, "beta=1,50", "sweep=s")
    Path("outputs/sweeps/s").rename("runs")
    Path("runs/sweep.json").unlink()  # a sweep has its own table
    answer = vae("eval", "run=runs", "k=10", "latents=false")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    start = lines.index("  2 runs")
    assert lines[start + 1].split()[:4] == ["run", "beta", "elbo", "rate"]
    rows = {tuple(line.split()[:2]) for line in lines[start + 2 : start + 4]}
    assert rows == {("0-beta=1", "1"), ("1-beta=50", "50")}
    assert "  runs/eval-test.csv" in lines
    assert "| run | beta | ELBO (beta = 1), nats |" in Path("runs/eval-test.md").read_text()
    for name in ("0-beta=1", "1-beta=50"):
        assert report(f"runs/{name}")["nll"]["num_samples"] == 10
    (line,) = vae("eval", "run=nowhere").errors()
    assert "no run at nowhere" in line


def test_a_model_that_was_collapsed_is_told_so_and_a_healthy_one_is_not(vae: Vae) -> None:
    healthy = ("latent_dim=4", "epochs=25", "model.encoder.hidden=[64]", "model.decoder.hidden=[64]", "logger=none")
    for name, arguments in (("healthy", ["lr=3e-3"]), ("collapsed", ["beta=100"])):
        assert vae("train", *healthy, *arguments, f"out={name}").code == 0
        vae("eval", f"run={name}", "k=10")
    assert report("healthy")["warnings"] == []
    assert report("healthy")["active_units"]["value"] >= 3
    assert "none of 4 latent dimensions is active" in report("collapsed")["warnings"][0]
    assert "lower beta (it was 100)" in report("collapsed")["warnings"][0]
    assert report("collapsed")["active_units"]["value"] == 0
    assert report("collapsed")["mutual_information"]["value"] == pytest.approx(0, abs=0.05)


def test_one_latent_has_a_map(vae: Vae) -> None:
    assert vae("train", *TINY[:-2], "latent_dim=1", "out=one").code == 0
    assert vae("eval", "run=one", "k=0").code == 0
    assert "test-map.png" in report(Path("one"))["plots"]
    assert len((Path("one") / "tb/best/test/tensors.tsv").read_text().splitlines()) == 360


def test_plots_have_the_chosen_format(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", "k=0", "format=svg").code == 0
    plots = report(trained)["plots"]
    assert plots == ["test-latents.svg", "test-map.svg", "test-class-means.png"]  # a grid of pixels stays one
    assert "![](test-map.svg)" in (trained / "eval/test.md").read_text()
    assert all(b"<svg" in (trained / "eval" / plot).read_bytes() for plot in plots[:2])
    (line,) = vae("eval", f"run={trained}", "format=gif").errors()
    assert "png" in line


def test_labels_are_predicted_from_latents_and_plotted_as_a_map(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "k=0")
    found = report(trained)
    for name in ("linear_probe", "knn_probe", "majority_class"):
        assert 0 <= found[name]["value"] <= 1
        assert found[name]["n"] == 360
    assert found["mig"] is None
    assert found["unavailable"]["mig"] == "the data has no factors of variation"
    assert (
        len(np.unique(np.array(Image.open(trained / "eval/test-map.png").convert("RGB")).reshape(-1, 3), axis=0)) > 10
    )
    lines = (trained / "tb/best/test/tensors.tsv").read_text().splitlines()
    assert len(lines) == 360
    assert len(lines[0].split()) == 3  # the projector needs three dimensions
    assert {line.split()[2] for line in lines} == {"0"}


def test_factors_have_disentanglement_scores(vae: Vae) -> None:
    shapes = ("data=shapes", "data.size=8", "data.num_train=300", "data.num_valid=0", "data.num_test=200")
    assert vae.train(*shapes, "data.orientations=2", "data.positions=4", "batch_size=50", "out=run").code == 0
    assert vae("eval", "run=run", "k=1").code == 0
    for name in ("mig", "sap", "dci_disentanglement", "factor_vae_score", "beta_vae_score", "modularity"):
        assert 0 <= report("run")[name]["value"] <= 1
        assert report("run")[name]["n"] > 50
    assert report("run")["linear_probe"] is None
    assert "several factors" in report("run")["unavailable"]["linear_probe"]


@pytest.mark.slow
def test_images_are_compared_where_that_is_asked_for(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", "k=0", "latents=false", "images=true").code == 0
    found = report(trained)
    assert found["psnr"]["value"] > 3
    for name, pixels in (("ssim", 11), ("ms_ssim", 176)):
        reason = f"needs images with at least {pixels} pixels per side; these have 8"
        assert found["unavailable"][name] == reason
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        conditions = "360 samples, features of a classifier of this data's labels (seed 0)"
        few = "; biased upwards: 360 images are too few" * (name == "frechet_distance")
        assert found[name]["conditions"] == conditions + few
    (line,) = vae("eval", f"run={trained}", "images=true", "inception=nowhere.pt").errors()
    assert "inception=nowhere.pt" in line


def test_signals_have_no_metrics_of_images(vae: Vae) -> None:
    np.save("x.npy", np.random.RandomState(0).rand(100, 5).astype(np.float32))
    assert vae.train("data=arrays", "data.path=x.npy", "batch_size=10", "out=run").code == 0
    answer = vae("eval", "run=run", "images=true", "k=5")
    assert answer.code == 0, answer.err
    assert report("run")["psnr"] is None
    assert report("run")["unavailable"]["psnr"] == "the data does not consist of images"
    assert "continuous values: a density of the numbers in the file" in answer.out


def test_other_data_is_told_apart(vae: Vae, trained: Path) -> None:
    np.save("noise.npy", np.random.RandomState(0).randint(0, 17, (100, 8, 8)).astype(np.uint8))
    answer = vae("eval", f"run={trained}", "k=0", "latents=false", "ood=noise.npy")
    assert answer.code == 0, answer.err
    assert report(trained)["auroc"]["value"] > 0.7
    assert report(trained)["auroc"]["conditions"] == "-ELBO, ood=noise.npy"
    assert report(trained)["auroc"]["n"] == 360 + 100
    assert np.array(Image.open(trained / "eval/test-ood-noise.png")).std() > 1


@pytest.mark.parametrize(("name", "why"), [
    ("shapes", "has grey images of 64x64 pixels with 256 levels, but the run was trained on grey images of 8x8 pixels "
     "with 17 levels"),
    ("fashion_mnits", "did you mean fashion_mnist?"),
    ("nowhere.npy", "no such data set, folder or file"),
])  # fmt: skip
def test_other_data_must_be_like_the_runs(vae: Vae, trained: Path, name: str, why: str) -> None:
    (line,) = vae("eval", f"run={trained}", f"ood={name}").errors()
    assert f"ood={name}" in line
    assert why in line


OTHER = {
    "uint8": (lambda r: r.integers(0, 256, (50, 8, 8), np.uint8), "grey images of 8x8 pixels with 256 levels"),
    "uint16": (lambda r: r.integers(0, 2**16, (50, 8, 8), np.uint16), "grey images of 8x8 pixels with 65,536 levels"),
    "float": (lambda r: r.random((50, 8, 8)), "grey images of 8x8 pixels with continuous values"),
    "colour": (lambda r: r.integers(0, 17, (50, 8, 8, 3), np.uint8), "colour images of 8x8 pixels with 256 levels"),
    "vectors": (lambda r: r.normal(size=(50, 5)), "vectors of 5 columns with continuous values"),
    "signals": (lambda r: r.normal(size=(50, 2, 100)), "signals of 2 channels and 100 steps with continuous values"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_data_and_that_of_the_run_are_described(vae: Vae, trained: Path, kind: str) -> None:
    make, description = OTHER[kind]
    np.save("x.npy", make(np.random.default_rng(0)))
    (line,) = vae("eval", f"run={trained}", "ood=x.npy").errors()
    own = "grey images of 8x8 pixels with 17 levels"
    assert line.split(maxsplit=1)[1] == f"has {description}, but the run was trained on {own}"


NEW_METRIC = """
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo


class NumImages(Metric):
    outputs = (MetricInfo("num_images", "number of images", "images", 0),)

    def __init__(self, factor: float, enabled: bool = True) -> None:
        super().__init__(enabled)
        self.factor = factor

    def __call__(self, subject):
        return {"num_images": Estimate(self.factor * len(subject.images), None, len(subject.images))}
"""


def test_a_metric_of_another_package_is_one_file_and_one_yaml(vae: Vae, trained: Path, monkeypatch) -> None:
    Path("mymetrics.py").write_text(NEW_METRIC)
    Path("myconf/metric").mkdir(parents=True)
    Path("myconf/metric/num_images.yaml").write_text("_target_: mymetrics.NumImages\nfactor: 2.0\n")
    monkeypatch.syspath_prepend(".")
    arguments = ("eval", f"run={trained}", *BRIEF, "--config-dir", "myconf")
    assert vae(*arguments, "allow=mymetrics").code == 0
    assert report(trained)["num_images"]["value"] == 720
    assert "number of images, images" in (trained / "eval/test.md").read_text()
    assert vae(*arguments, "allow=mymetrics", "metrics.num_images.factor=3").code == 0
    assert report(trained)["num_images"]["value"] == 1080
    (line,) = vae(*arguments).errors()
    assert "allow=mymetrics" in line


def test_a_metric_can_be_left_out(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", *BRIEF, "metrics.nll.enabled=false").code == 0
    assert "nll" not in report(trained)
    (line,) = vae("eval", f"run={trained}", "metrics.nll.kk=3").errors()
    assert "no such setting" in line


def test_reports_of_the_same_weights_are_merged(vae: Vae, trained: Path) -> None:
    arguments = ("eval", f"run={trained}", "latents=false")
    assert vae(*arguments, "k=5", "seed=3").code == 0
    before = report(trained)
    assert vae(*arguments, "k=0", "seed=4").code == 0
    after = report(trained)
    assert after["nll"] == before["nll"]
    assert (after["nll"]["seed"], after["nll"]["num_samples"], after["elbo"]["seed"]) == (3, 5, 4)
    assert after["nll"]["date"] <= after["elbo"]["date"]
    assert "nll" not in after["unavailable"]
    assert "K = 5" in (trained / "eval/test.md").read_text()


def test_every_checkpoint_and_prior_has_a_report(vae: Vae, trained: Path) -> None:
    assert vae("fit-prior", f"run={trained}", "prior=kde").code == 0
    for arguments in ((), ("checkpoint=last",), ("prior=kde",), ("checkpoint=last", "prior=kde")):
        assert vae("eval", f"run={trained}", *BRIEF, *arguments).code == 0
    names = {path.stem for path in (trained / "eval").glob("*.json")}
    assert names == {"test", "test-last", "test-kde", "test-last-kde"}


def test_a_report_of_other_weights_is_replaced_with_a_line(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", "checkpoint=last", *BRIEF).code == 0
    assert vae("train", f"resume={trained}", "epochs=3").code == 0
    answer = vae("eval", f"run={trained}", "checkpoint=last", "latents=false", "k=0")
    assert f"{trained}/eval/test-last.json has metrics of other weights; replacing them" in answer.out
    assert report(trained, "test-last")["nll"] is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"elbo": {"value": 1}, "weights": 3}'])
def test_a_damaged_report_is_replaced(vae: Vae, trained: Path, content: str) -> None:
    (trained / "eval").mkdir()
    (trained / "eval/test.json").write_text(content)
    assert vae("eval", f"run={trained}", "latents=false", "k=0").code == 0
    assert report(trained)["elbo"]["se"] > 0


def test_metrics_of_a_split_with_few_images_say_what_they_need(vae: Vae, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", x_train=np.random.rand(40, 8, 8), x_test=np.random.rand(3, 8, 8))
    vae.train("data=arrays", f"data.path={tmp_path}/few.npz", "out=few", "batch_size=8")
    answer = vae("eval", "run=few", "images=true", *BRIEF)
    assert answer.code == 0
    unavailable = json.loads(Path("few/eval/test.json").read_text())["unavailable"]
    assert unavailable["recall"] == "needs at least 4 images; the split has 3"
    assert unavailable["coverage"] == "needs at least 6 images; the split has 3"
