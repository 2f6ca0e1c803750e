"""Files that claim or unpack to more than memory holds are refused before they are read."""

from __future__ import annotations

import io
import re
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.pictures import encoded, save, scene
from tests.data.test_arrays import opened, refused
from tests.data.test_folder import folder
from tests.data.test_folder import opened as opened_folder
from tests.data.test_torchvision_files import write_mnist
from vae_train.data.sources.dsprites import NAME, DSprites
from vae_train.data.sources.mnist import MNIST
from vae_train.data.storage import image_files
from vae_train.util import runtime
from vae_train.util.errors import UsageError

MIB = 2**20


def archive(path: Path, shape: tuple[int, ...], dtype: str, stored: int, member: str = "images.npy") -> Path:
    """An .npz whose array has `stored` bytes of zeros, whatever its header says."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, header.getvalue() + bytes(stored))
    return path


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", (60, 1, 512, 512), "|u1", 60 * 512 * 512)
    assert path.stat().st_size < MIB
    monkeypatch.setattr(runtime, "available_memory", lambda: 10 * MIB)
    why = "images needs 15 MiB of memory unpacked, but only 10 MiB are available"
    assert why in refused(path)
    monkeypatch.setattr(runtime, "available_memory", lambda: 16 * MIB)
    assert "integers up to 0" not in str(opened(path, "binarize=dynamic").facts)


@pytest.mark.parametrize("dtype", ["|u1", "<f4", "<f8"])
def test_a_header_that_claims_terabytes_is_refused_at_once(dtype, tmp_path):
    path, begin = archive(tmp_path / "x.npz", (10**8, 1, 512, 512), dtype, 10**5), time.monotonic()
    assert "its header says" in refused(path)
    assert time.monotonic() - begin < 1


def test_floats_need_a_copy_for_training(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", (20, 1, 256, 256), "<f4", 20 * 256 * 256 * 4)
    monkeypatch.setattr(runtime, "available_memory", lambda: 8 * MIB)
    assert "needs 10 MiB of memory" in refused(path)


def test_an_expanded_tensor_is_refused(tmp_path):
    torch.save({"images": torch.zeros(1, 1, 1, 1).expand(10**7, 1, 1024, 1024)}, tmp_path / "x.pt")
    assert "images is expanded to 39,062 GiB; save a contiguous tensor" in refused(tmp_path / "x.pt")
    torch.save({"images": torch.arange(9.0).expand(30, 9).contiguous()}, tmp_path / "x.pt")
    assert opened(tmp_path / "x.pt").facts.data_shape == (1, 1, 9)


def test_a_table_of_text_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 1000)
    monkeypatch.setattr(runtime, "available_memory", lambda: 10_000)
    assert "needs 39.1 KiB of memory as a table" in refused(tmp_path / "x.csv")


def test_an_image_bomb_is_refused_by_its_size(tmp_path):
    png = encoded("PNG")
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[24:29]
    (tmp_path / "a.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    for overrides in ((), ("size=8", "channels=3", f"cache={tmp_path}")):
        with pytest.raises(UsageError, match=r"a\.png: has 60,000 x 60,000 pixels, more than 178,956,970"):
            opened_folder(tmp_path, *overrides)
    with pytest.raises(UsageError, match="none of its files is a readable image"):
        folder(tmp_path).inspect()


@pytest.mark.parametrize("overrides", [(), ("channels=1",), ("size=8",), ("size=8", "channels=3")], ids=str)
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(overrides, tmp_path, monkeypatch, caches):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").write_bytes(encoded("JPEG", scene(120, 160)))
    if "size=8" not in overrides:
        with pytest.raises(UsageError, match=r"120 x 160 pixels, more than 1,000; a smaller data\.size decodes less"):
            opened_folder(tmp_path / "x", *overrides)
        return
    (tmp_path / "x" / "b.jpg").write_bytes(encoded("JPEG", scene(120, 160, seed=1)))
    data = opened_folder(tmp_path / "x", *overrides)
    assert data.bad_files == ()
    assert data.facts.data_shape[1:] == (8, 8)
    assert Image.MAX_IMAGE_PIXELS == 500


@pytest.mark.parametrize("kind", ["colour", "16 bits", "progressive"])
def test_an_image_that_does_not_fit_into_memory_is_a_bad_file(kind, tmp_path, monkeypatch, caches):
    monkeypatch.setattr(image_files, "UNCHECKED_PIXELS", 100)
    monkeypatch.setattr(runtime, "available_memory", lambda: 40_000)
    monkeypatch.setattr(image_files, "cores", lambda: 4)
    pixels, folder_of_images = scene(60, 80), tmp_path / "x"
    if kind == "progressive":
        content = encoded("JPEG", pixels, progressive=True)
    else:
        content = encoded("PNG", pixels[..., 0].astype(np.uint16) * 257 if kind == "16 bits" else pixels)
    for number in range(3):
        save(folder_of_images / f"{number}.png", scene(8, 8, seed=number))
    (folder_of_images / "large.png").write_bytes(content)
    ((name, why),) = opened_folder(folder_of_images, "size=8", "channels=3").bad_files
    assert name == "large.png"
    assert re.fullmatch(r"needs [\d.]+ KiB of memory to be decoded, but only 9.77 KiB are available", why)
    monkeypatch.setattr(runtime, "available_memory", lambda: 10**9)
    assert opened_folder(folder_of_images, "size=8", "channels=3").bad_files == ()  # it is tried again


@pytest.mark.parametrize("what", ["train-images-idx3", "t10k-labels-idx1"])
def test_an_idx_file_is_as_large_as_its_header_says(what, tmp_path):
    write_mnist(tmp_path)
    path, begin = tmp_path / "MNIST" / "raw" / f"{what}-ubyte", time.monotonic()
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff\xff\xff\xff" + content[8:])
    stated = "4294967295 x 28 x 28" if "images" in what else "4294967295"
    with pytest.raises(UsageError, match=f"{what}-ubyte is damaged: its header says {stated} bytes, .* GiB; it has"):
        MNIST(str(tmp_path), "none", "all").read()
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match=f"{what}-ubyte is damaged: .*; it has 1,024 GiB; remove it"):
        MNIST(str(tmp_path), "none", "all").read()
    assert time.monotonic() - begin < 1


def test_an_idx_file_larger_than_memory_is_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setattr(runtime, "available_memory", lambda: 1000)
    with pytest.raises(UsageError, match=r"idx3-ubyte needs 6\.12 KiB of memory, but only 1,000 B are available"):
        MNIST(str(tmp_path), "none", "all").read()


def test_a_dsprites_that_unpacks_to_more_is_refused(tmp_path):
    (tmp_path / "dsprites").mkdir()
    path = tmp_path / "dsprites" / NAME
    archive(path, (1,), "|u1", 1, "imgs.npy")
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02")
    content[start + 24 : start + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more.npy", bytes(1000))
    with pytest.raises(UsageError, match="it unpacks to 4 GiB"):
        DSprites(str(tmp_path), 0, 0, str(tmp_path / "cache")).read()
    assert not (tmp_path / "cache").exists()


def test_available_memory_is_the_smallest_limit(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 7 kB\n")
    (tmp_path / "memory.max").write_text("9000")
    (tmp_path / "memory.current").write_text("3000")
    monkeypatch.setattr(runtime, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(runtime, "CONTAINER_MEMORY", tmp_path / "memory.max")
    assert runtime.available_memory() == 6000
    (tmp_path / "memory.max").write_text("max\n")
    assert runtime.available_memory() == 7 * 1024
    monkeypatch.setattr(runtime, "MEMORY", tmp_path / "nowhere")
    assert runtime.available_memory() > MIB
