"""`vae export`: files that other programs read, and a model card; or one line that says why not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.commandline import BRIEF, Vae
from tests.support import PACKAGE
from vae_train import load, open_data
from vae_train.cli.main import run
from vae_train.runs.config import Config

PAGE = PACKAGE.parent / "docs" / "export.md"
ONNX = ("onnx", "onnxscript", "onnxruntime")


def files(folder: Path | str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def snippets(card: str) -> list[str]:
    """The Python that a card shows."""
    return re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)


def ran(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """The variables after code was run in a folder."""
    with monkeypatch.context() as context:
        context.chdir(folder)
        exec(code, names)
    return names


def digits() -> np.ndarray:
    """Test images of digits as bytes."""
    return np.round(255 * open_data("made").images[:5]).astype(np.uint8)


@pytest.fixture(scope="module")
def exported(_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of the run of `trained`."""
    folder = tmp_path_factory.mktemp("exports") / "a b"
    assert run(["export", f"run={_trained}", "format=pt2", "license=mit", f"out={folder}"]) == 0
    return folder


def test_programs_run_without_the_model(exported: Path, trained: Path) -> None:
    assert files(exported) == {"encoder.pt2", "decoder.pt2", "config.json", "facts.json", "README.md"}
    images, model = torch.from_numpy(digits()), load("made")
    encoder, decoder = (torch.export.load(exported / f"{part}.pt2").module() for part in ("encoder", "decoder"))
    latents = model.encode(images)
    for count in (1, 5):
        mean, log_variance = encoder(images[:count])
        torch.testing.assert_close(mean, latents.mean[:count])
        torch.testing.assert_close(log_variance, 2 * latents.std[:count].log())
        torch.testing.assert_close(decoder(mean)[0], model.reconstruct(images)[:count])


def test_the_card_names_data_protocol_and_command(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    (run,) = re.findall(r"vae export run=(\S+)", card)
    assert card.startswith("---\nlicense: mit\n")
    for row in ("| source | digits |", "| levels | 17 |", "| training images | 1,257 |", "| beta | 1.0 |"):
        assert row in card
    assert f"vae export run={run} format=pt2 license=mit 'out={exported}'" in card
    assert f"Not evaluated; `vae eval run={run}` evaluates these." in card
    config = json.loads((exported / "config.json").read_text())
    assert Config(config) == Config.read(Path(run) / "config.yaml")


def test_the_code_in_the_card_runs(exported: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(digits())
    expected = load("made").reconstruct(images)
    (code,) = snippets((exported / "README.md").read_text())
    names = ran(code, exported, monkeypatch, image=images)
    torch.testing.assert_close(names["reconstruction"], expected)


@pytest.mark.slow
def test_the_card_has_measured_metrics_of_the_same_weights(vae: Vae, trained: Path) -> None:
    assert vae("eval", "run=made", *BRIEF).code == 0
    elbo = json.loads((trained / "eval/test.json").read_text())["elbo"]
    assert vae("export", "run=made", "format=pt2").code == 0
    card = (trained / "export/README.md").read_text()
    assert f"| ELBO (beta = 1), nats | {elbo['value']:.2f} ± {elbo['se']:.2f} | 360 images |" in card
    assert "license: unknown" in card

    assert vae("train", "resume=made", "epochs=3").code == 0
    assert vae("export", "run=made", "format=pt2", "checkpoint=last").code == 0
    card = (trained / "export-2/README.md").read_text()
    assert "Only other weights were evaluated" in card
    assert "ELBO (beta" not in card


@pytest.mark.slow
def test_the_documentation_draws_latents_with_onnx_runtime(
    vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ONNX:
        pytest.importorskip(package)
    assert vae("export", "run=made", "format=onnx", "out=here").code == 0
    names = ran(snippets(PAGE.read_text())[0], Path("here"), monkeypatch, image=digits())
    expected = load("made").decode(names["z"])
    np.testing.assert_allclose(names["reconstruction"], expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_onnx_runtime_runs_a_conditional_model(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ONNX:
        pytest.importorskip(package)
    assert vae.train("model.condition=label", "out=made").code == 0
    answer = vae("export", "run=made", "format=onnx", "out=here")
    assert answer.code == 0, answer.err
    (code,) = snippets(Path("here/README.md").read_text())
    model, image, label = load("made"), digits(), np.array([0, 3, 9, 1, 1])
    names = ran(code, Path("here"), monkeypatch, image=image, label=label)
    np.testing.assert_allclose(names["mean"], model.encode(image, label).mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(names["reconstruction"], model.reconstruct(image, label).numpy(), atol=1e-5)


def test_weights_and_configuration_are_the_model(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the code in the documentation. Weights that are averaged in training are exported averaged."""
    pytest.importorskip("safetensors")
    settings = ("learner.ema=0.5", "preprocessing=logit", "model/likelihood=gaussian", "out=made")
    assert vae.train(*settings).code == 0
    assert vae("export", "run=made", "format=safetensors", "out=here").code == 0
    assert files("here") == {"model.safetensors", "config.json", "facts.json", "README.md"}
    names = ran(snippets(PAGE.read_text())[1], Path("here"), monkeypatch)
    expected = load("made").model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in names["model"].state_dict().items())
    last = torch.load("made/checkpoints/last.pt", weights_only=True)["model"]
    assert not all(torch.equal(value, expected[name]) for name, value in last.items())


def test_a_fitted_prior_is_a_file(vae: Vae, trained: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    assert vae("fit-prior", "run=made", "prior=gmm", "prior.components=2").code == 0
    assert vae("eval", "run=made", "prior=gmm", *BRIEF).code == 0
    assert vae("export", "run=made", "format=safetensors", "prior=gmm", "out=here").code == 0
    fitted = torch.load(trained / "priors/gmm.pt", weights_only=True)["weights"]
    found = safetensors.load_file("here/prior.safetensors")
    assert fitted.keys() == found.keys()
    assert all(torch.equal(fitted[name], found[name]) for name in found)
    assert "Split test-gmm" in Path("here/README.md").read_text()
    assert load("made").model.state_dict().keys() == safetensors.load_file("here/model.safetensors").keys()


@pytest.mark.slow
def test_default_folders_have_numbers(vae: Vae, trained: Path) -> None:
    (trained / "export").mkdir()
    answer = vae("export", "run=made", "format=pt2")
    assert answer.out.splitlines()[0] == "made"
    assert answer.out.splitlines()[-1].strip() == "made/export-2"
    assert answer.out.count("differs from the model by at most") == 2
    assert files(trained / "export") == set()
    assert "README.md" in files(trained / "export-2")


def test_an_earlier_export_is_kept_unless_it_may_be_replaced(vae: Vae, trained: Path) -> None:
    Path("here").mkdir()
    for name in ("config.json", "encoder.onnx"):
        Path("here", name).write_text("")
    (line,) = vae("export", "run=made", "format=pt2", "out=here").errors()
    assert line.strip() == "out=here  exists and is not empty; choose another folder, or add overwrite=true"
    assert files("here") == {"config.json", "encoder.onnx"}
    assert vae("export", "run=made", "format=pt2", "out=here", "overwrite=true").code == 0
    assert files("here") == {"encoder.pt2", "decoder.pt2", "config.json", "facts.json", "README.md"}


def test_a_program_that_differs_from_the_model_is_not_kept(
    vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_train.runs.export.export.MAX_DIFFERENCE", -1.0)
    before = files(trained)
    answer = vae("export", "run=made", "format=pt2")
    assert answer.code == 1
    assert re.search(r"encoder\.pt2 differs from the model by \S+, more than -1e\+00; nothing was written", answer.err)
    assert files(trained) == before


def test_a_likelihood_with_too_many_terms_is_an_error(vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_train.runs.export.export.MAX_SUMMED_LEVELS", 16)
    before = files(trained)
    (line,) = vae("export", "run=made", "format=pt2").errors()
    assert "format=pt2" in line
    assert "the mean of this likelihood is a sum over 17 levels; use format=safetensors" in line
    assert files(trained) == before


def test_text_of_a_run_is_no_markup(vae: Vae, trained: Path) -> None:
    """Runs of other people are not trusted, and a card is published under one's own name."""
    config = Config.read(trained / "config.yaml")
    config.with_values({"name": "digits\n\n# by me | <script>"}).write(trained / "config.yaml")
    environment = json.loads((trained / "environment.json").read_text())
    environment |= {"command": ["vae", "train", "x\n```\n<script>"], "device": "<script>|"}
    (trained / "environment.json").write_text(json.dumps(environment))
    assert vae("export", "run=made", "format=pt2", "out=here").code == 0
    card = Path("here/README.md").read_text()
    text = re.sub(r"^```.*?^```$", "", card, flags=re.M | re.S)
    assert "# digits\\n\\n# by me \\| \\<script\\>" in card.splitlines()[7]
    assert not re.search(r"(?<!\\)<", text)
    assert [line for line in card.splitlines() if line.startswith("# ")] == [card.splitlines()[7]]


class Hub:
    """The Hugging Face Hub, which accepts uploads to the repositories of "me"."""

    def __init__(self, token: str | None = "token") -> None:
        self.token, self.created, self.uploaded = token, list[tuple[str, bool]](), dict[str, set[str]]()

    def get_token(self) -> str | None:
        return self.token

    def HfApi(self) -> Hub:
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        if not repo_id.startswith("me/"):
            raise PermissionError("403 Forbidden\nyou are not a member")
        assert exist_ok
        self.created.append((repo_id, private))
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.uploaded[repo_id] = files(folder_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub()
    module = SimpleNamespace(get_token=fake.get_token, HfApi=fake.HfApi)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)  # type: ignore[arg-type]
    return fake


def test_an_export_is_uploaded(vae: Vae, trained: Path, hub: Hub) -> None:
    answer = vae("export", "run=made", "format=pt2", "hub=me/digits")
    assert answer.code == 0, answer.err
    assert "https://hub.example/me/digits" in answer.out
    assert hub.created == [("me/digits", True)]
    assert hub.uploaded == {"me/digits": files(trained / "export")}
    assert "hub=me/digits" in (trained / "export/README.md").read_text()


@pytest.mark.slow
def test_a_failed_upload_keeps_the_export(vae: Vae, trained: Path, hub: Hub) -> None:
    answer = vae("export", "run=made", "format=pt2", "hub=other/digits", "private=false")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "vae export: hub=other/digits: 403 Forbidden; the export itself is in made/export"
    ]
    assert (trained / "export/README.md").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["format=onxx"], "has no choice onxx; did you mean onnx? (onnx, pt2, safetensors)"),
        (["format="], "is empty; choose from onnx, pt2, safetensors"),
        (["format=pt2,pt2"], "names pt2 twice"),
        (["format=pt2", "run=nowhere"], "no run at nowhere"),
        (["format=pt2", "checkpoint=first"], "must be one of best, last"),
        (["format=safetensors", "prior=gmm"], "has no fitted prior; fit it with: vae fit-prior run=made prior=gmm"),
        (["format=pt2", "prior=kept"], "has no effect without format=safetensors"),
        (["format=pt2", "license=my own"], "is not a licence identifier, for instance mit"),
        (["format=pt2", "out=full", "overwrite=true"], "exists and has files other than such results"),
        (["format=pt2", "out=mixed", "overwrite=true"], "has files other than those of an export (photo.png)"),
        (["format=pt2", "out=full/photo.png"], "is a file; choose a folder"),
        (["format=pt2", "out=link"], "is a symbolic link"),
        (["format=pt2", "overwrite=true"], "has no effect without out="),
        (["format=pt2", "hub=digits"], "is not a repository; write hub=owner/name"),
        (["format=pt2", "private=false"], "has no effect without hub="),
        (["format=pt2", "beta=4"], "comes from the run and cannot be changed here"),
        (["format=pt2", "quantize=true"], "no such setting"),
    ],
)
def test_errors_are_a_line(
    vae: Vae, trained: Path, hub: Hub, typed: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", SimpleNamespace())  # type: ignore[arg-type]
    Path("full").mkdir()
    Path("full/photo.png").write_text("")
    Path("link").symlink_to("full")
    Path("mixed").mkdir()
    for name in ("config.json", "photo.png"):
        Path("mixed", name).write_text("")
    (trained / "priors").mkdir()
    if "prior=kept" in typed:
        (trained / "priors/kept.pt").write_text("")
    before = files(trained), files("."), files("full")
    settings = typed if any(word.startswith("run=") for word in typed) else ["run=made", *typed]
    (line,) = vae("export", *settings).errors()
    assert message in line
    assert (files(trained), files("."), files("full")) == before


def test_a_run_without_a_checkpoint_is_an_error(vae: Vae, trained: Path) -> None:
    for path in (trained / "checkpoints").iterdir():
        path.unlink()
    (line,) = vae("export", "run=made", "format=pt2").errors()
    assert line.split() == ["made", "has", "no", "checkpoint", "yet"]


def test_missing_packages_are_named(vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())  # type: ignore[arg-type]
    lines = vae("export", "run=made", "format=onnx", "hub=me/digits").errors()
    assert [line.split() for line in lines] == [
        ["format=onnx", "needs", "onnx,", "onnxscript;", "pip", "install", '"vae_train[export]"'],
        ["hub=me/digits", "needs", "huggingface_hub;", "pip", "install", '"vae_train[export]"'],
    ]


def test_uploading_needs_a_login(vae: Vae, trained: Path, hub: Hub) -> None:
    hub.token = None
    (line,) = vae("export", "run=made", "format=pt2", "hub=me/digits").errors()
    assert "needs a login; run hf auth login, or set HF_TOKEN" in line
