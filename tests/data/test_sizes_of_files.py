"""Files that claim or unpack to more than memory holds are refused before they are read."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.pictures import encoded
from tests.data.test_arrays import opened, refused
from tests.data.test_folder import folder
from tests.data.test_folder import opened as opened_folder
from vae_train.data.sources.dsprites import NAME, DSprites
from vae_train.data.storage import array_files
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
    monkeypatch.setattr(array_files, "available_memory", lambda: 10 * MIB)
    why = "images needs 15 MiB of memory unpacked, and 10 MiB are available"
    assert why in refused(path)
    monkeypatch.setattr(array_files, "available_memory", lambda: 16 * MIB)
    assert "integers up to 0" not in str(opened(path, "binarize=dynamic").facts)


@pytest.mark.parametrize("dtype", ["|u1", "<f4", "<f8"])
def test_a_header_that_claims_terabytes_is_refused_at_once(dtype, tmp_path):
    path, begin = archive(tmp_path / "x.npz", (10**8, 1, 512, 512), dtype, 10**5), time.monotonic()
    assert "its header says" in refused(path)
    assert time.monotonic() - begin < 1


def test_floats_need_a_copy_for_training(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.npz", (20, 1, 256, 256), "<f4", 20 * 256 * 256 * 4)
    monkeypatch.setattr(array_files, "available_memory", lambda: 8 * MIB)
    assert "needs 10 MiB of memory" in refused(path)


def test_an_expanded_tensor_is_refused(tmp_path):
    torch.save({"images": torch.zeros(1, 1, 1, 1).expand(10**7, 1, 1024, 1024)}, tmp_path / "x.pt")
    assert "images is expanded to 39,062 GiB; save a contiguous one" in refused(tmp_path / "x.pt")
    torch.save({"images": torch.arange(9.0).expand(30, 9).contiguous()}, tmp_path / "x.pt")
    assert opened(tmp_path / "x.pt").facts.data_shape == (1, 1, 9)


def test_a_table_of_text_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 1000)
    monkeypatch.setattr(array_files, "available_memory", lambda: 10_000)
    assert "needs 39.1 KiB of memory as a table" in refused(tmp_path / "x.csv")


def test_an_image_bomb_is_refused_by_its_size(tmp_path):
    png = encoded("PNG")
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[24:29]
    (tmp_path / "a.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    for words in ((), ("size=8", "channels=3", f"cache={tmp_path}")):
        with pytest.raises(UsageError, match=r"a\.png: .*3600000000 pixels"):
            opened_folder(tmp_path, *words)
    with pytest.raises(UsageError, match="none of its files is an image"):
        folder(tmp_path).inspect()


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
