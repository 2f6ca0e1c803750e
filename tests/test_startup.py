"""What a command has not imported when its first step is done. (How long it takes is for scripts/bench.)"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

SYMPY = ("sympy",) if tuple(map(int, version("torch").split(".")[:2])) > (2, 8) else ()
"""`torch._check` of PyTorch 2.8 imports it."""

LATE = (
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "sklearn",
    "scipy",
    *SYMPY,
    "matplotlib",
    "tensorboard",
    "optuna",
)
"""Not needed for steps: each takes between a tenth of a second and a second and a half."""

FIRST_STEP = f"""
import sys
from vae_train.cli.main import main
from vae_train.training.learner import Learner

step = Learner.step

def first(*words):
    rows = step(*words)
    print("imported:", *[name for name in {LATE!r} if name in sys.modules])
    sys.stdout.flush()
    import os
    os._exit(0)

Learner.step = first
sys.argv = ["vae", "train", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [("optimizer=adam", "learner.ema=0.9", "model.output_bias=data"), ("optimizer=sgd", "model=conv")],
    ids=str,
)
def test_the_first_step_waits_for_no_library_that_it_does_not_need(arguments, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_a_whole_run_never_imports_the_compiler(tmp_path):
    names = ("torch._dynamo", "torchvision", "sklearn", *SYMPY)
    code = (
        FIRST_STEP.split("step =")[0]
        + f"names = {names!r}"
        + """
sys.argv = ["vae", "train", "epochs=2", "logger=none", "trainer.sample_every=1", "learner.clip_norm=1"]
try:
    main()
finally:
    print("imported:", *[n for n in names if n in sys.modules])
"""
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert "imported:" in done.stdout.splitlines(), done.stderr
    assert list(tmp_path.glob("outputs/*/*/samples/final.png"))
