"""Image files of every kind, whole and damaged, for tests of folders."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image

GREEN = (30, 200, 60)


def scene(height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: smooth colours, so that JPEG hardly changes them, with a bright top left corner."""
    rng = np.random.RandomState(seed)
    coarse = Image.fromarray(rng.randint(0, 200, (3, 4, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.array(coarse)
    pixels[: height // 3, : width // 3] = 255
    return pixels


def save(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene() if pixels is None else pixels).save(path, **options)
    return path


def encoded(kind: str, pixels: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene() if pixels is None else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def fill(root: Path, count: int, classes: int = 0, start: int = 0) -> list[Path]:
    """`count` different PNG files in `root`, or in folders of classes."""
    paths = []
    for number in range(start, start + count):
        folder = root / f"class{number % classes}" if classes else root
        paths.append(save(folder / f"{number:04d}.png", scene(seed=number)))
    return paths


def damaged(folder: Path) -> dict[str, Path]:
    """Files that no image can be read from, by the kind of their damage."""
    folder.mkdir(parents=True, exist_ok=True)
    png, jpeg = encoded("PNG"), encoded("JPEG")
    contents = {
        "empty.png": b"",
        "zeros.png": bytes(500),
        "text.png": b"this is a text\n",
        "page.jpg": b"<html><body>404 not found</body></html>",
        "truncated.png": png[: len(png) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.webp": encoded("WEBP")[:40],
        "truncated.gif": encoded("GIF")[:30],
        "truncated.bmp": encoded("BMP")[:100],
        "truncated.tif": encoded("TIFF")[:60],
        "signature_alone.png": png[:8],
        "signature_alone.jpg": jpeg[:2],
        "wrong_checksum.png": png[:40] + bytes(4) + png[44:],
        "no_pixels.png": png[:16] + struct.pack(">II", 0, 0) + png[24:],
        "enormous.png": png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:],
        "strange_depth.png": png[:24] + b"\x07" + png[25:],
        "archive.png": b"PK\x03\x04" + bytes(60),
        "program.jpg": b"\x7fELF" + bytes(60),
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "floats.tif": _tiff(np.linspace(-3, 3, 192, dtype=np.float32).reshape(12, 16)),
        "wide_integers.tif": _tiff(np.full((12, 16), 2**20, np.int32)),
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    for name, target in (("nowhere.png", "missing.png"), ("itself.png", "itself.png")):
        paths[name] = folder / name
        paths[name].symlink_to(target)
    paths["pipe.png"] = folder / "pipe.png"
    os.mkfifo(paths["pipe.png"])
    return paths


def odd(folder: Path) -> dict[str, Path]:
    """Files that are unusual and can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = Image.fromarray(scene())
    paths = {
        "cmyk.jpg": folder / "cmyk.jpg",
        "palette.png": folder / "palette.png",
        "palette_transparent.gif": folder / "palette_transparent.gif",
        "alpha.png": folder / "alpha.png",
        "grey_alpha.png": folder / "grey_alpha.png",
        "bilevel.png": folder / "bilevel.png",
        "sixteen.png": folder / "sixteen.png",
        "sixteen.tif": folder / "sixteen.tif",
        "one_pixel.png": folder / "one_pixel.png",
        "very_wide.png": folder / "very_wide.png",
        "very_high.png": folder / "very_high.png",
        "broken_exif.jpg": folder / "broken_exif.jpg",
        "turned.jpg": folder / "turned.jpg",
        "animated.gif": folder / "animated.gif",
        "pages.tif": folder / "pages.tif",
        "lossless.webp": folder / "lossless.webp",
        "bitmap.bmp": folder / "bitmap.bmp",
        "progressive.jpeg": folder / "progressive.jpeg",
        "UPPER.PNG": folder / "UPPER.PNG",
        "naïve 图像 🙂.png": folder / "naïve 图像 🙂.png",
        "a jpeg.png": folder / "a jpeg.png",
        "link.png": folder / "link.png",
        "rubbish behind.jpg": folder / "rubbish behind.jpg",
    }
    rgb.convert("CMYK").save(paths["cmyk.jpg"], quality=95)
    rgb.quantize(32).save(paths["palette.png"])
    rgb.quantize(32).save(paths["palette_transparent.gif"], transparency=0)
    rgb.convert("RGBA").save(paths["alpha.png"])
    rgb.convert("LA").save(paths["grey_alpha.png"])
    rgb.convert("1").save(paths["bilevel.png"])
    deep = (np.arange(192).reshape(12, 16) * 300).astype(np.uint16)
    Image.fromarray(deep).save(paths["sixteen.png"])
    Image.fromarray(deep).save(paths["sixteen.tif"])
    Image.fromarray(np.full((1, 1, 3), GREEN, np.uint8)).save(paths["one_pixel.png"])
    Image.fromarray(np.full((2, 20_000, 3), GREEN, np.uint8)).save(paths["very_wide.png"])
    Image.fromarray(np.full((20_000, 2, 3), GREEN, np.uint8)).save(paths["very_high.png"])
    rgb.save(paths["broken_exif.jpg"], exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(paths["turned.jpg"], exif=exif, quality=95)
    frames = [Image.fromarray(np.full((12, 16, 3), c, np.uint8)) for c in (GREEN, (200, 0, 0))]
    frames[0].save(paths["animated.gif"], save_all=True, append_images=frames[1:])
    frames[0].save(paths["pages.tif"], save_all=True, append_images=frames[1:])
    rgb.save(paths["lossless.webp"], lossless=True)
    rgb.save(paths["bitmap.bmp"])
    rgb.save(paths["progressive.jpeg"], progressive=True, quality=95)
    rgb.save(paths["UPPER.PNG"])
    rgb.save(paths["naïve 图像 🙂.png"])
    paths["a jpeg.png"].write_bytes(encoded("JPEG", quality=95))
    paths["link.png"].symlink_to("UPPER.PNG")
    paths["rubbish behind.jpg"].write_bytes(encoded("JPEG", quality=95) + b"rubbish" * 100)
    return paths


def _tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()
