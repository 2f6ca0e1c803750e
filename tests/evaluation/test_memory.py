"""Every metric works in blocks: thousands of images need little memory beyond the images themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vae_train

WITHIN = """if True:
    import resource, sys
    import matplotlib.pyplot, sklearn.ensemble, sklearn.linear_model, sklearn.manifold, sklearn.neighbors, torch
    import vae_train.cli.commands.eval
    from vae_train.cli.main import run
    torch.zeros(64, 64) @ torch.zeros(64, 64)
    used = 1024 * int(open('/proc/self/status').read().split('VmSize:')[1].split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + {limit}, -1))
    sys.exit(run({words}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit address space")
def test_all_metrics_of_thousands_of_images_fit_into_a_gigabyte(tmp_path):
    shapes = ("data=shapes", "data.size=28", "data.num_train=6000", "data.num_valid=10", "data.num_test=5000")
    run = vae_train.train(*shapes, "epochs=1", "logger=none", out=str(tmp_path / "run"))
    words = ["eval", f"run={run.folder}", "images=true", "k=100"]
    code = WITHIN.format(limit=2**30, words=words)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "SSIM of reconstructions" in answer.stdout
