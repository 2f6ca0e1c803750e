"""The benchmarks do what they say: the same work everywhere, the shapes of the floor, tables that can be read."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import compare, nll, report
from benchmarks.cached import Cached, start
from benchmarks.compare import Pace, Unequal, agreement, members
from benchmarks.contender import Contender, covered
from benchmarks.floor import Floor, record
from benchmarks.imagefolder import Tutorial as ImageFolderTutorial
from benchmarks.loading import CLASSES, SIDE, compared, generated
from benchmarks.loading import members as loading_members
from benchmarks.ours import Ours, composed, constant
from benchmarks.plain import Plain, Tutorial
from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Process
from benchmarks.whole import writing_share
from benchmarks.work import Setting, Work
from benchmarks.writing import WRITING, accounted
from tests.support import compose
from vae_train.rng import FixedNoise
from vae_train.training.execution import Program
from vae_train.training.inputs import Inputs
from vae_train.training.reduced import reduced
from vae_train.training.traced import traced
from vae_train.training.trainer import Trainer

MLP = Work("mlp", (1, 28, 28), 128)
SMALL = [Work("mlp", (1, 10, 9), 32, width=16), Work("conv", (1, 12, 9), 16), Work("conv", (3, 9, 12), 16)]


def ours(setting: Setting, **knobs: str) -> Ours:
    """Without what `prepare` does to the process, which the other tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.ours.prepare", lambda threads, precision: None)
        return Ours(setting, execution="eager", **knobs)


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Floor:
    monkeypatch.setattr("benchmarks.ours.prepare", lambda threads, precision: None)
    return Floor(Setting(MLP, 128))


def test_the_floor_has_the_shapes_and_the_work_of_the_mlp(floor: Floor) -> None:
    shapes = [(layer.input[0], layer.weight[0], layer.output[0], layer.first) for layer in floor.layers]
    assert shapes == [
        ((128, 784), (400, 784), (128, 400), True),
        ((128, 400), (40, 400), (128, 40), False),
        ((128, 20), (400, 20), (128, 400), False),
        ((128, 400), (784, 400), (128, 784), False),
    ]
    forward = 2 * 128 * (784 * 400 + 400 * 40 + 20 * 400 + 400 * 784)
    inputs = forward - 2 * 128 * 784 * 400
    assert sum(layer.flop for layer in floor.layers) == 2 * forward + inputs == 419_840_000
    assert floor.parameters == 652_824
    floor.steps(1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("work", SMALL[1:], ids=lambda work: work.title)
def test_the_floor_of_convolutions_runs(work: Work, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ours.prepare", lambda threads, precision: None)
    found = Floor(Setting(work, 32), precision)
    kinds = [None if layer.convolution is None else layer.convolution["transposed"] for layer in found.layers]
    scales = 2
    assert kinds == [False] * scales + [None] * 4 + [True] * scales + [False]
    found.steps(1)


def test_flop_of_convolutions() -> None:
    down = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
    up = torch.nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1)
    model = torch.nn.Sequential(down, up)
    first, second = record(model, lambda: model(torch.zeros(7, 3, 8, 8)))
    kernel = 3 * 5 * 9
    assert first.flop == 2 * 2 * 7 * 4 * 4 * kernel
    assert second.flop == 3 * 2 * 7 * 4 * 4 * kernel


@pytest.fixture
def pythae() -> Iterator[Callable[[Setting], Contender]]:
    pytest.importorskip("pythae")
    from benchmarks.library import Pythae

    made: list[Pythae] = []

    def make(setting: Setting) -> Contender:
        made.append(Pythae(setting))
        return made[-1]

    yield make
    for contender in made:
        contender.close()


def agrees(work: Work, make: Callable[[Setting], Contender]) -> None:
    setting, steps = Setting(work, 128), 6
    other, mine = make(setting), ours(setting)
    assert other.parameters == mine.parameters
    assert other.steps(steps) == pytest.approx(mine.steps(steps), rel=0.05)
    assert other.steps(2) == pytest.approx(mine.steps(2), rel=0.05)


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.title)
def test_the_plain_loop_does_what_ours_does(work: Work) -> None:
    agrees(work, lambda setting: Plain(setting, workers=0))


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.title)
def test_pythae_does_what_ours_does(work: Work, pythae: Callable[[Setting], Contender]) -> None:
    agrees(work, pythae)


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.title)
def test_the_loss_is_the_same_with_the_same_weights_and_noise(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = ours(Setting(work, 128)), Tutorial(work)
    *trunk, weight, bias = mine.learner.model.encoder.parameters()
    (mean, log_variance), (mean_bias, log_variance_bias) = weight.chunk(2), bias.chunk(2)
    heads = [mean, mean_bias, log_variance, log_variance_bias]
    theirs_in_order = [theirs.trunk, theirs.mean, theirs.log_variance, theirs.decoder]
    with torch.no_grad():
        for old, new in zip(
            [p for module in theirs_in_order for p in module.parameters()],
            [*trunk, *heads, *mine.learner.model.decoder.parameters()],
            strict=True,
        ):
            old.copy_(new)
    noise = torch.randn(work.batch_size, work.latent_dim)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    batch = mine.stream.batch(0)
    losses, _ = mine.learner.forward(batch, 0, FixedNoise([noise[None]]))
    expected = theirs.loss(batch.x, *theirs(batch.x)) / work.batch_size
    # Dequantised colours lie at (k + 1/2) / 256, others at k / 255.
    tolerance = 1e-5 if work.binary else 5e-3
    assert losses.loss.item() - constant(work) == pytest.approx(expected.item(), rel=tolerance)


def test_the_settings_of_the_works_are_those_of_the_experiment() -> None:
    mine, published = composed(MLP), compose("experiment=pytorch_example")
    for place in ("model", "optimizer", "objective", "learner", "lr_schedule", "batch_size", "latent_dim", "seed"):
        assert mine[place] == published[place]


def member(name: str, loss: float, parameters: int = 1) -> Member:
    kind = name.split(",")[0]
    return Member(name, kind, Setting(MLP, 128), loss=loss, facts={"parameters": parameters})


def test_unequal_contenders_are_refused() -> None:
    pace = Pace(warm=10, window=5, band=0.02, turn=1, repeats=1)
    agreement([member("plain", 100.0), member("ours", 101.0), member("floor", float("nan"))], pace)
    with pytest.raises(Unequal, match="more than 2% apart"):
        agreement([member("plain", 100.0), member("ours", 103.0)], pace)
    with pytest.raises(Unequal, match="more than 2% apart"):
        agreement([member("plain", 100.0), member("ours", float("nan"))], pace)
    with pytest.raises(Unequal, match="parameters"):
        agreement([member("plain", 100.0), member("ours", 100.0, parameters=2)], pace)


def test_ratios_pair_repetitions() -> None:
    assert times_as_fast([1.0, 2.0, 4.0], [3.0, 2.0, 8.0]) == Spread(2.0, 1.0, 3.0, [3.0, 1.0, 2.0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ours_competes_with_its_default_settings(device: str) -> None:
    names = [m.name for m in members(Setting(MLP, 128, device))]
    assert len(set(names)) == len(names)
    assert names.count("ours") == 1
    assert {name.split(",")[0] for name in names} == {"plain", "pythae", "ours", "floor"}


@pytest.mark.parametrize("emulated", [None, "precision=bfloat16: slow here"])
@pytest.mark.parametrize("compilers", [["g++"], []])
def test_what_cannot_be_done_here_or_takes_minutes_is_left_out(monkeypatch, emulated, compilers) -> None:
    monkeypatch.setattr(compare, "emulated", lambda precision, device: emulated if precision == "bfloat16" else None)
    monkeypatch.setattr(compare.shutil, "which", lambda name: name if name in compilers else None)
    found = members(Setting(MLP, 128, "cpu"))
    absent = {m.name for m in found if compare.unfit("cpu", **m.knobs)}
    slow = {"ours, bfloat16", "ours, compile, bfloat16", "floor, bfloat16"} if emulated else set()
    assert absent == slow | (set() if compilers else {"ours, compile", "ours, compile, bfloat16"})
    assert compare.unfit("cuda", "compile") is None


@pytest.mark.parametrize(
    ("device", "name", "kind"),
    [
        ("cpu", "Intel(R) Xeon(R) Processor", "cpu-2-cores-intel-xeon-processor"),
        ("cpu", "AMD EPYC", "cpu-2-cores-amd-epyc"),
        ("cuda", "AMD EPYC", "nvidia-h200"),
    ],
)
def test_every_kind_of_machine_has_a_file_of_its_own(monkeypatch, device, name, kind) -> None:
    monkeypatch.setattr(report, "cpu_model", lambda: name)
    facts = {"cores": 2, "gpu": "NVIDIA H200", "python": "3.12", "torch": "2.15", "cuda": "13.0"}
    assert report.path({"machine": report.machine(facts, device, 2)}).name == f"{kind}.json"


def figures() -> report.Figures:
    s = Spread.of([1.0, 2.0, 3.0]).as_json()
    row = {"steps_per_second": s, "images_per_second": s, "ours_times_as_fast": s, "peak_mib": {"resident": 700}}
    part = {
        "title": MLP.title,
        "data": "MNIST",
        "parameters": 652_824,
        "gflop_per_step": 0.42,
        "agreement": {"steps": 10, "window": 5, "losses": {"plain": 100.0, "ours": 101.0}},
        "contenders": {"plain": row, "ours": row, "floor": row | {"peak_mib": None}},
        "left_out": {"pythae": "pip install pythae"},
    }
    about = {"kind": "cpu-2-cores", "gpu": None, "cpu": "A processor", "cores": 2, "threads": 2, "torch": "2.15"}
    return {"command": "scripts/bench", "date": "2026-01-02", "machine": about, "parts": {"mlp-128": part}}


def operations(work: Work) -> list[str]:
    """What a step calls as it is executed by default."""
    member, names = ours(Setting(work, 128)), list[str]()
    inputs = Inputs(member.learner, member.stream)
    inputs.fill(0)
    member.learner.take(*inputs.of(0))

    def make(function: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
        graph, tensors = traced(function, bindings=True)
        reduced(graph, tensors)
        names.extend(str(node.target) for node in graph.nodes if node.op == "call_function")
        return function

    Program(inputs, make)
    return names


def test_an_idle_step_has_the_same_operations_on_next_to_nothing() -> None:
    idle = MLP.idle
    assert (idle.network, idle.batch_size, idle.shape) == ("mlp", MLP.batch_size, (1, 1, 1))
    assert (idle.width, idle.latent_dim) == (1, 1)
    assert ours(Setting(idle, 128)).parameters == 2 + 4 + 2 + 2
    assert math.isfinite(ours(Setting(idle, 128)).steps(2))
    assert operations(idle) == operations(MLP) != []


def test_what_a_training_spends_on_writing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_draw", lambda *args: time.sleep(0.1))
    before = {(owner, name): getattr(owner, name) for owner, name in WRITING}
    member = ours(Setting(SMALL[0], 128))
    found = member.timed_whole(2)
    assert 0.1 <= found["waited"] < found["seconds"]
    assert 0 < found["beside"] < found["seconds"]
    assert {(owner, name): getattr(owner, name) for owner, name in WRITING} == before


def test_the_share_of_writing_counts_the_cores_that_are_shared() -> None:
    share = writing_share([{"seconds": 10.0, "waited": 0.2, "beside": 0.1}], threads=2)
    assert share["least"]["median"] == pytest.approx(0.02)
    assert share["most"]["median"] == pytest.approx(0.035)


def test_processor_time_of_threads_is_counted() -> None:
    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    class Own(threading.Thread):
        def run(self) -> None:
            work()

    with accounted(lambda: None) as account:
        for thread in (threading.Thread(target=work), Own(), threading.Thread(target=time.sleep, args=(0.5,))):
            thread.start()
            thread.join()
    assert 0.1 <= account.beside < 0.5


def test_the_report_renders(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(figures(), tmp_path / "cpu-2-cores.json")
    (tmp_path / "other.json").write_text("{}")
    assert json.loads((tmp_path / "cpu-2-cores.json").read_text()) == figures()
    report.rewrite_readme(readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| plain | 2.00 (1.00 – 3.00) | 2 | 2.00 (1.00 – 3.00) | 700 |" in text
    assert "| ours | 2.00 (1.00 – 3.00) | 2 | 1 | 700 |" in text
    assert "Left out: pythae (pip install pythae)." in text
    once = text
    share = Spread.of([0.05, 0.06, 0.08]).as_json()
    outside = {"ours": {"most": share}, "plain": {"least": share, "most": share}}
    overhead = {"title": MLP.title, "images": 10, "outside": outside, "besides": share, "writing": outside["plain"]}
    text = report.tables(figures() | {"parts": {"overhead": overhead}})
    assert "| ours: share of a step outside PyTorch's kernels | at most 6.0% (5.0% – 8.0%) |" in text
    assert "| plain: share of a step outside PyTorch's kernels | between 6.0% (5.0% – 8.0%) and 6.0%" in text
    assert "| ours: share of 20 epochs that goes into writing | between 6.0% (5.0% – 8.0%) and 6.0% " in text
    found = {
        "command": "scripts/gpu_check",
        "host": {"gpu": "A GPU", "torch": "2.15", "date": "2026-01-02T03:04:05+00:00"},
        "stages": [],
        "timings": figures()["parts"]["mlp-128"],
        "launch_gaps": [
            {"execution": "graph", "wall_us_per_step": 310.4, "kernels_us_per_step": 290.1, "kernels_per_step": 100.37,
             "gap_share": 0.0654}
        ],
    }  # fmt: skip
    (tmp_path / "gpu-a-gpu.json").write_text(json.dumps(found))
    report.rewrite_readme(readme)
    assert "### A GPU\n\n`scripts/gpu_check`, torch 2.15, 2026-01-02." in readme.read_text()
    assert "| execution=graph | 310 | 290 | 100 | 6.5% |" in readme.read_text()
    (tmp_path / "gpu-a-gpu.json").unlink()
    report.rewrite_readme(readme)
    assert readme.read_text() == once


def test_kernels_that_run_side_by_side_count_once() -> None:
    assert covered([(0.0, 2.0), (5.0, 6.0), (1.0, 3.0), (5.5, 5.7)]) == 4.0
    assert covered([]) == 0.0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(tmp_path_factory.mktemp("loading") / "images", 70)


READING = Setting(Work("mlp", (3, SIDE, SIDE), 32), 70)


def cached(root: Path, cache: Path, storage: str = "device", workers: int = 0) -> Cached:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.cached.prepare", lambda threads: None)
        return Cached(READING, str(root), str(cache), storage, workers)


def test_generated_images_are_the_same_every_time(images: Path, tmp_path: Path) -> None:
    again = generated(tmp_path, 70)
    files = sorted(path.relative_to(images) for path in images.rglob("*.jpg"))
    assert len(files) == 70
    assert len({file.parent for file in files}) == CLASSES
    assert all((images / file).read_bytes() == (again / file).read_bytes() for file in files)


@pytest.mark.parametrize(("storage", "workers"), [("device", 0), ("host", 0), ("host", 2)])
def test_cached_images_are_those_of_imagefolder(images: Path, tmp_path: Path, storage: str, workers: int) -> None:
    mine = cached(images, tmp_path, storage, workers)
    found = mine.agreement()
    assert (found["images"], found["share_differing"]) == (70, 0.0)
    assert found["greatest_difference"] < 1e-6
    assert mine.taken == 3
    mine.steps(2)
    mine.stream.close()


def test_other_pixels_labels_or_files_are_refused(images: Path, tmp_path: Path) -> None:
    mine = cached(images, tmp_path / "cache")
    labels, pixels = mine.stream.images.labels, mine.stream.images.store.pixels
    labels[3] = (labels[3] + 1) % CLASSES
    with pytest.raises(Unequal, match="or their labels differ"):
        mine.agreement()
    labels[3] = (labels[3] - 1) % CLASSES
    mine.agreement()
    pixels[5, 0, 0, 0] ^= 1
    with pytest.raises(Unequal, match=r"values by up to 0\.00392"):
        mine.agreement()
    other = generated(tmp_path / "other", 71)
    mine.root = str(other)
    with pytest.raises(Unequal, match="71 images"):
        mine.agreement()


def test_the_tutorial_reads_whole_passes(images: Path) -> None:
    theirs = ImageFolderTutorial(READING, str(images), workers=0)
    about = theirs.about()
    assert about == {"batches": 3, "images": 70}
    batches = [next(theirs.batches) for _ in range(2 * about["batches"])]
    assert [len(x) for x, _ in batches] == [32, 32, 6] * 2
    theirs.steps(1)


def test_a_start_makes_the_cache_and_another_opens_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.cached.prepare", lambda threads: None)
    for _ in range(2):
        found = start(str(images), str(tmp_path), "cpu", 1)
        assert (found["images"], found["shape"], found["classes"]) == (70, (3, SIDE, SIDE), CLASSES)
        assert found["seconds"] > 0
        assert len(list(tmp_path.iterdir())) == 1


def test_readers_are_compared_with_the_faster_tutorial(tmp_path: Path) -> None:
    process = Process()
    names = [m.name for m in loading_members(READING, {"root": "r", "cache": "c"}, process, process)]
    seconds = dict(zip(names, ([4.0, 4.0], [2.0, 3.0], [1.0, 1.0], [2.0, 1.0], [4.0, 6.0]), strict=True))
    found = compared(seconds)
    assert found["reference"] == "ImageFolder, workers=2"
    assert found["contenders"]["ours"]["times_as_fast"]["all"] == [2.0, 3.0]
    assert found["contenders"]["ours, storage=host, workers=2"]["times_as_fast"]["all"] == [0.5, 0.5]
    assert found["contenders"]["ours, storage=host, workers=0"]["images_per_second"]["all"] == [0.5, 1.0]


def test_the_report_of_loading_renders() -> None:
    s = Spread.of([10.0, 20.0, 30.0]).as_json()
    part = {
        "title": "70 images of 32x32 in 10 classes",
        "data": "JPEGs",
        "images": 70,
        "batch_size": 32,
        "agreement": {"images": 70, "share_differing": 0.0, "greatest_difference": 6e-8},
        "starts": {
            "first": {"seconds": s, "images_per_second": s},
            "lists": {"seconds": s, "images_per_second": None},
        },
        **compared({"ImageFolder, workers=0": [0.1, 0.1], "ours": [0.05, 0.04]}),
    }
    text = report.tables({**figures(), "parts": {"loading": part}})
    assert "| ours | 22 (20 – 25) | 2.25 (2.00 – 2.50) |" in text
    assert "| first | 20.00 (10.00 – 30.00) | 20 (10 – 30) |" in text
    assert "| lists | 20.00 (10.00 – 30.00) | – |" in text
    assert "All 70 images were compared" in text


def test_the_report_of_the_likelihood_is_measured_and_renders() -> None:
    part = nll.measure("cpu", 1, 2, lambda text: None)
    assert part["flop_per_draw"] == 2 * (50 * 200 + 200 * 200 + 200 * 784)
    assert part["draws_per_second"]["min"] > 0
    assert part["share_of_the_floor"]["median"] == pytest.approx(
        part["draws_per_second"]["median"] / part["floor_per_second"]["median"], rel=0.5
    )
    text = report.tables({**figures(), "parts": {"nll": part}})
    assert "| vae eval | " in text
    assert "413,600 floating-point operations" in text
