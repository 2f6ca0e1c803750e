from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from vae_train.util import runtime as hardware
from vae_train.util.runtime import cores, emulated, memory_format

ALONE = """
import resource, torch
from vae_train.util.runtime import prepare
prepare(2)
small = torch.full((100_000,), 1e-38)
print(torch.get_num_threads(), (small * 1e-3).abs().max().item())
for _ in range(3):
    for side in (1000, 2000, 3000):
        torch.ones(side, side)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(3000, 3000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_prepared_process_flushes_tiny_numbers_and_keeps_its_memory():
    threads, faults = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert threads == "2 0.0"
    if sys.platform == "linux" and "glibc" in os.confstr("CS_GNU_LIBC_VERSION"):
        assert int(faults) < 15_000  # 36 MB are 8,800 pages, five times 44,000


@pytest.mark.parametrize(
    ("quota", "bound", "found"),
    [("max 100000", 16, 16), ("200000 100000", 16, 2), ("250000 100000", 16, 3), ("50000 100000", 16, 1),
     ("800000 100000", 4, 4), ("nonsense", 16, 16)],
)  # fmt: skip
def test_the_quota_of_a_container_bounds_the_cores(tmp_path, monkeypatch, quota, bound, found):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(hardware, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
    assert cores() == found


def test_without_a_quota_the_cores_are_those_the_process_is_bound_to(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "QUOTA", tmp_path / "missing")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [("cpu", "float32", torch.channels_last), ("cpu", "bfloat16", torch.channels_last),
     ("cuda", "float32", torch.contiguous_format), ("cuda", "tf32", torch.channels_last),
     ("cuda", "bfloat16", torch.channels_last), ("mps", "float32", torch.contiguous_format)],
)  # fmt: skip
def test_the_layout_is_a_rule_of_device_and_precision(device, precision, expected):
    assert memory_format(torch.device(device), precision) == expected


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_only_tf32_rounds_float32_products(precision):
    before = torch.get_num_threads()
    try:
        hardware.prepare(1, precision)
        assert torch.get_num_threads() == 1
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    finally:
        hardware.prepare(before)


@pytest.mark.parametrize("supported", [False, True])
def test_a_precision_that_the_processor_only_emulates_is_said(monkeypatch, supported):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported, raising=False)
    assert (emulated("bfloat16", torch.device("cpu")) is None) == supported
    assert emulated("float32", torch.device("cpu")) is None
    assert emulated("bfloat16", torch.device("cuda")) is None


@pytest.mark.parametrize(("load", "threads", "warns"), [(9e9, 2, True), (9e9, 1, False), (0.0, 2, False)])
def test_a_busy_machine_is_said_where_threads_would_wait_for_each_other(monkeypatch, load, threads, warns):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    message = hardware.busy_message(threads)
    assert (message is not None) == warns
    assert message is None or "threads=1" in message
