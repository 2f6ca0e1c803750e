"""The chart of the activity of latent dimensions."""

import numpy as np
import pytest
from PIL import Image

from vae_train.plotting.charts import plot_latent_activity


@pytest.mark.parametrize("dims", [2, 16, 33, 64, 200])
@pytest.mark.parametrize("has_kl", [True, False])
def test_the_chart_of_any_number_of_latents_fits_a_page(dims, has_kl, tmp_path):
    variance = np.linspace(0, 2, dims)
    plot_latent_activity(variance, variance if has_kl else None, 0.01, tmp_path / "latents.png")
    with Image.open(tmp_path / "latents.png") as image:
        width, height = image.size
    assert height < width < 7 * height
    assert width <= 2400
