"""Images of any number of channels are shown wherever images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import Vae

SHOWN = {1: None, 2: "all 2", 3: None, 4: "all 4", 5: "all 5", 12: "the first 8 of 12"}


@pytest.fixture(params=SHOWN)
def arguments(request: pytest.FixtureRequest) -> tuple[str, ...]:
    images = np.random.default_rng(0).integers(0, 256, (80, request.param, 12, 12)).astype(np.uint8)
    np.save("x.npy", images)
    return ("data=arrays", "data.path=x.npy", "data.layout=NCHW")


def check(folder: str, *names: str) -> None:
    for name in names:
        with Image.open(Path(folder) / name) as image:
            assert image.mode in ("L", "RGB")
            assert np.asarray(image).std() > 2


def said(out: str, arguments: tuple[str, ...]) -> None:
    which = SHOWN[np.load("x.npy").shape[1]]
    assert out.count("side by side") == (which is not None)
    assert which is None or f"images show {which} channels side by side, as grey" in out


def test_data_shows_all_channels(arguments: tuple[str, ...], vae: Vae) -> None:
    answer = vae("data", *arguments, "out=seen", "num=9")
    assert answer.code == 0, answer.err
    said(answer.out, arguments)
    check("seen", "contact.png", "mean.png")


def test_a_run_shows_all_channels(arguments: tuple[str, ...], vae: Vae) -> None:
    tensorboard = ("logger=tensorboard", "batch_size=8", "epochs=1", "out=run")
    small = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2")
    answer = vae("train", *arguments, *tensorboard, *small)
    assert answer.code == 0, answer.err
    said(answer.out, arguments)
    check("run", *(f"{name}.png" for name in ("samples/final", "samples/manifold", "reconstructions/final")))
    answer = vae("sample", "run=run", "num=3", "save_each=true", "npz=true", "out=shown")
    assert answer.code == 0, answer.err
    said(answer.out, arguments)
    check("shown", "prior-seed0-num3.png", "prior-seed0-num3/00002.png")
    assert vae("sample", "run=run", "show=manifold", "out=shown").code == 0
    check("shown", "manifold.png")
    answer = vae("eval", "run=run", "k=2", "images=true")
    assert answer.code == 0, answer.err
