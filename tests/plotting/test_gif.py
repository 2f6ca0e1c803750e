from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from vae_train.plotting.gif import write_frames, write_gif


def read(path: Path) -> tuple[np.ndarray, list[int], int]:
    """Frames `(N, height, width, 3)`, their durations in ms, and how often they repeat (0: forever)."""
    with Image.open(path) as file:
        frames = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(file)]
        return np.stack([pixels for pixels, _ in frames]), [duration for _, duration in frames], file.info["loop"]


def random_levels(*shape: int, levels: int) -> torch.Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(0)) / (levels - 1)


@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (3, 6)])
def test_frames_keep_their_size_and_colours(tmp_path, channels, levels):
    frames = list(random_levels(5, channels, 20, 30, levels=levels))
    write_frames(tmp_path / "a.gif", frames, 0.25)
    pixels, durations, loop = read(tmp_path / "a.gif")
    expected = torch.stack(frames).mul(255).round().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    assert np.array_equal(pixels, expected.numpy())
    assert (durations, loop) == ([250] * 5, 0)


def test_a_gif_may_go_back_without_repeating_its_ends(tmp_path):
    frames = [torch.full((1, 8, 8), level / 3) for level in range(4)]
    write_frames(tmp_path / "a.gif", iter(frames), 0.1, there_and_back=True)
    pixels, _, _ = read(tmp_path / "a.gif")
    assert pixels[:, 0, 0, 0].tolist() == [0, 85, 170, 255, 170, 85]


def test_photographs_stay_close(tmp_path):
    ramp = torch.stack(torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij"))
    images = torch.cat([ramp, ramp.flip(1)[:1]])[None].repeat(2, 1, 1, 1)
    images[1] = images[1].flip(1)
    write_frames(tmp_path / "a.gif", list(images), 0.1)
    pixels, _, _ = read(tmp_path / "a.gif")
    assert np.abs(pixels / 255 - images.permute(0, 2, 3, 1).numpy()).mean() < 0.03


def test_small_images_are_enlarged_by_a_whole_factor(tmp_path):
    images = random_levels(3, 1, 8, 8, levels=17)
    write_gif(tmp_path / "a.gif", images, 0.1)
    pixels, _, _ = read(tmp_path / "a.gif")
    factor = pixels.shape[1] // 8
    assert pixels.shape[1:3] == (8 * factor, 8 * factor)
    assert factor > 10
    small = pixels[:, ::factor, ::factor, 0]
    assert np.array_equal(small, images[:, 0].mul(255).round().numpy())
    assert np.array_equal(small.repeat(factor, 1).repeat(factor, 2), pixels[..., 0])


@pytest.mark.parametrize("shape", [(2, 1, 40), (1, 1, 7), (5, 12, 12), (3, 400, 300)])
def test_signals_channels_and_large_images_become_frames_of_one_size(tmp_path, shape):
    write_gif(tmp_path / "a.gif", random_levels(3, *shape, levels=5), 0.1)
    pixels, durations, _ = read(tmp_path / "a.gif")
    assert len(durations) == 3
    if shape[1] > 1:
        assert pixels.shape[1] % shape[1] == 0


def test_equal_frames_last_longer(tmp_path):
    frame = random_levels(1, 8, 8, levels=17)
    write_frames(tmp_path / "a.gif", [frame, frame, 1 - frame], 0.1)
    _, durations, _ = read(tmp_path / "a.gif")
    assert sum(durations) == 300


def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path):
    write_gif(tmp_path / "a.gif", torch.zeros(2, 1, 8, 8), 0.1)
    before = (tmp_path / "a.gif").read_bytes()
    with pytest.raises(RuntimeError):
        write_frames(tmp_path / "a.gif", [torch.zeros(4)], 0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    assert (tmp_path / "a.gif").read_bytes() == before
