"""The figures as a file and as tables; benchmarks/README.md shows the tables of every machine that was measured."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from benchmarks.whole import EPOCHS

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- measured: begin (scripts/bench writes this) -->", "<!-- measured: end -->"

Figures = dict[str, Any]


def machine(facts: Figures, device: str, threads: int) -> Figures:
    """The kind of machine and its software; nothing that names this one.

    Args:
        facts: what `Worker.machine` says.
        device: what is measured, "cpu" or "cuda".
        threads: PyTorch's threads.
    """
    cores = facts["cores"]
    cpu = cpu_model()
    kind = f"cpu {cores} cores {cpu.replace('(R)', '').replace('(TM)', '')}" if device == "cpu" else facts["gpu"]
    return {
        "kind": re.sub("[^a-z0-9]+", "-", kind.lower()).strip("-"),
        "device": device,
        "cpu": cpu,
        "gpu": facts["gpu"] if device == "cuda" else None,
        "cores": cores,
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **{name: facts[name] for name in ("python", "torch", "cuda")},
    }


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def path(report: Figures) -> Path:
    """Where a report belongs: one file per kind of machine."""
    return HERE / f"{report['machine']['kind']}.json"


def write(report: Figures, place: Path) -> None:
    """Writes a report; lists of figures take a line each."""
    text = json.dumps(report, indent=2)
    text = re.sub(r"\[\s+([-+.\d\se,]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text + "\n")


def tables(report: Figures) -> str:
    """Everything that a report has, as Markdown."""
    about = report["machine"]
    name = about["gpu"] or f"{about['cpu']}, {about['cores']} cores"
    blocks = [
        f"### {name}",
        f"`{report['command']}`, {about['threads']} threads, torch {about['torch']}, {report['date']}. "
        "Every figure is median (min – max).",
    ]
    parts = report["parts"]
    blocks += [comparison(part) for part in parts.values() if "gflop_per_step" in part]
    makers = {
        "epochs": _epochs, "overhead": _overhead, "startup": _startup, "scaling": _scaling, "loading": _loading,
        "nll": _nll,
    }  # fmt: skip
    blocks += [make(parts[name]) for name, make in makers.items() if name in parts]
    blocks += [f"**{name}** was not measured: {why}." for name, why in report.get("failed", {}).items()]
    return "\n\n".join(blocks)


def rewrite_readme(readme: Path = README) -> None:
    """Puts the tables of all reports in the README's folder between its two marks."""
    reports = [json.loads(file.read_text()) for file in sorted(readme.parent.glob("*.json"))]
    makers = {"parts": tables, "stages": checked}
    text = "\n\n".join(make(report) for report in reports for key, make in makers.items() if key in report)
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def checked(report: Figures) -> str:
    """What scripts/gpu_check found, as Markdown."""
    host = report["host"]
    about = f"`{report['command']}`, torch {host['torch']}, {host['date'][:10]}. Every figure is median (min – max)."
    blocks = [f"### {host['gpu']}", about]
    if report["timings"] is not None:
        blocks.append(comparison(report["timings"]))
    if "launch_gaps" in report:
        rows = [
            [f"execution={row['execution']}", f"{row['wall_us_per_step']:,.0f}", f"{row['kernels_us_per_step']:,.0f}",
             f"{row['kernels_per_step']:.0f}", f"{row['gap_share']:.1%}"]
            for row in report["launch_gaps"]
        ]  # fmt: skip
        head = ["", "μs per step", "of which kernels run", "kernels", "share without one"]
        blocks.append(f"**Kernels and the gaps between them** (the same step)\n\n{_table(head, rows)}")
    return "\n\n".join(blocks)


def comparison(part: Figures) -> str:
    """The table of a work, see `benchmarks.compare.measure`."""
    rows = []
    for name, row in part["contenders"].items():
        memory = row["peak_mib"]
        rows.append([
            name,
            _spread(row["steps_per_second"], 1),
            f"{row['images_per_second']['median']:,.0f}",
            _ratio(row["ours_times_as_fast"], name),
            "–" if memory is None else " + ".join(f"{v:,}" for v in memory.values()),
        ])  # fmt: skip
    work = f", {part['gflop_per_step']:.2f} GFLOP per step" if part["gflop_per_step"] else ""
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in part["agreement"]["losses"].items())
    last = part["agreement"]["steps"]
    agreed = f"Mean loss of steps {last - part['agreement']['window']} to {last}"
    head = ["", "steps/s", "images/s", "ours is … times as fast", "peak memory, MiB"]
    return "\n\n".join([
        f"**{part['title']}** ({part['data']}; {part['parameters']:,} parameters{work})",
        _table(head, rows),
        f"{agreed}: {losses}." + _left_out(part),
    ])  # fmt: skip


def _epochs(part: Figures) -> str:
    rows = [
        [name, _spread(row["seconds_per_epoch"], 2), _ratio(row["ours_times_as_fast"], name),
         " + ".join(f"{v:,}" for v in row["peak_mib"].values())]
        for name, row in part["contenders"].items()
    ]  # fmt: skip
    title = f"**A whole epoch with validation and what is written** ({part['title']}, {part['images']:,} images)"
    head = ["", "seconds", "ours is … times as fast", "peak memory, MiB"]
    return f"{title}\n\n{_table(head, rows)}{_left_out(part)}"


def _overhead(part: Figures) -> str:
    rows = [[f"{name}: share of a step outside PyTorch's kernels", _bounds(v)] for name, v in part["outside"].items()]
    rows.append([f"ours: share of {EPOCHS} epochs that goes into writing", _bounds(part["writing"])])
    rows.append([f"ours: share of {EPOCHS} epochs that is neither step nor validation", _percent(part["besides"])])
    title = f"**Overhead** ({part['title']}, {part['images']:,} images)"
    return f"{title}\n\n{_table(['', 'share'], rows)}"


def _bounds(share: Figures) -> str:
    most = _percent(share["most"])
    return f"between {_percent(share['least'])} and {most}" if "least" in share else f"at most {most}"


def _startup(part: Figures) -> str:
    rows = [[f"`{name}`" if name.startswith(("vae --", "python")) else name, _spread(v, 2)]
            for name, v in part["seconds"].items()]  # fmt: skip
    memory = f"A process that has only imported torch has {part['torch_resident_mib']:,} MiB."
    return f"**Start-up**\n\n{_table(['', 'seconds'], rows)}\n\n{memory}"


def _scaling(part: Figures) -> str:
    blocks = []
    for name, series in part.items():
        rows = [
            [str(row["value"]), f"{row['gflop_per_step']:,.2f}", _spread(row["milliseconds"]["ours"], 2),
             _spread(row["milliseconds"]["floor"], 2), _spread(row["of_the_floor"], 2)]
            for row in series["rows"]
        ]  # fmt: skip
        head = [name, "GFLOP per step", "ours, ms per step", "floor, ms per step", "ours / floor"]
        blocks.append(f"**Cost by {name}** ({series['about']})\n\n{_table(head, rows)}")
    return "\n\n".join(blocks)


def _loading(part: Figures) -> str:
    rows = [
        [name, _spread(row["images_per_second"], 0), _spread(row["times_as_fast"], 2)]
        for name, row in part["contenders"].items()
    ]
    starts = [
        [name, _spread(row["seconds"], 2), _spread(rate, 0) if (rate := row["images_per_second"]) else "–"]
        for name, row in part["starts"].items()
    ]
    agreed = part["agreement"]
    return "\n\n".join([
        f"**Loading** ({part['title']}: {part['data']}; batch {part['batch_size']}, nothing is trained)",
        _table(["", "images/s", f"times as fast as {part['reference']}"], rows),
        _table(["until there is data", "seconds", "images/s"], starts),
        f"All {agreed['images']:,} images were compared with ImageFolder's before: {agreed['share_differing']:.1%} "
        f"differ in their label or by half a level, the greatest difference is {agreed['greatest_difference']:.1g}.",
    ])  # fmt: skip


def _nll(part: Figures) -> str:
    rows = [
        ["vae eval", _spread(part["draws_per_second"], 0), _spread(part["minutes"], 1)],
        ["the decoder's matrix products alone", _spread(part["floor_per_second"], 0), "–"],
    ]
    return "\n\n".join([
        "**-log p(x) by importance sampling** (784-200-200-50-200-200-784, "
        f"{part['draws_at_once']} draws per image at once; {part['flop_per_draw']:,} floating-point operations of the "
        "decoder per draw)",
        _table(["", "draws of z per second", "minutes for 10,000 images, K = 5,000"], rows),
        f"Share of the time that the matrix products alone take: {_percent(part['share_of_the_floor'])}.",
    ])  # fmt: skip


def _left_out(part: Figures) -> str:
    return "".join(f"\n\nLeft out: {name} ({why})." for name, why in part["left_out"].items())


def _spread(figure: Figures, digits: int) -> str:
    """The median and its spread; small figures keep three significant digits."""
    digits = max(digits, 2 if figure["median"] < 10 else digits) if figure["median"] >= 0.1 else 3
    return f"{figure['median']:,.{digits}f} ({figure['min']:,.{digits}f} – {figure['max']:,.{digits}f})"


def _ratio(figure: Figures | None, name: str) -> str:
    if name == "ours" or figure is None:
        return "1" if figure else "–"
    return _spread(figure, 2)


def _percent(figure: Figures) -> str:
    return f"{figure['median']:.1%} ({figure['min']:.1%} – {figure['max']:.1%})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
