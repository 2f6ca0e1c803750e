"""Results as JSON files and as Markdown tables; benchmarks/README.md shows the tables of every measured machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.io_overhead import EPOCHS

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
BEGIN, END = "<!-- results: begin (written by scripts/bench) -->", "<!-- results: end -->"
CAPTION = "Every value is median (min – max)."

Results = dict[str, Any]


def results_path(results: Results) -> Path:
    """The results file of a kind of machine."""
    return RESULTS / f"{results['machine']['kind']}.json"


def write(results: Results, path: Path) -> None:
    """Writes results as JSON; a list of numbers takes one line."""
    text = json.dumps(results, indent=2)
    text = re.sub(r"\[\s+([-+.\d\se,]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def rewrite_readme(readme: Path = README, folder: Path = RESULTS) -> None:
    """Writes the tables of all results between the two marks of the README.

    Args:
        readme: the file.
        folder: contains the results.
    """
    files = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    formats = {"parts": bench_tables, "stages": gpu_tables}
    text = "\n\n".join(format(results) for results in files for key, format in formats.items() if key in results)
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def bench_tables(results: Results) -> str:
    """The tables of scripts/bench."""
    machine = results["machine"]
    name = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    run = f"`{results['command']}`, {machine['threads']} threads, torch {machine['torch']}, {results['date']}."
    parts = results["parts"]
    blocks = [f"### {name}", f"{run} {CAPTION}"]
    blocks += [comparison_table(part) for part in parts.values() if "agreement" in part and "parameters" in part]
    formats = {
        "epochs": _epochs, "io_overhead": _io_overhead, "startup": _startup, "scaling": _scaling, "loading": _loading,
        "nll": _nll, "apply": _apply, "step_memory": _step_memory,
    }  # fmt: skip
    blocks += [format(parts[name]) for name, format in formats.items() if name in parts]
    blocks += [f"**{name}** was not measured: {reason}." for name, reason in results.get("failed", {}).items()]
    return "\n\n".join(blocks)


def gpu_tables(results: Results) -> str:
    """The tables of scripts/gpu_check."""
    host = results["host"]
    run = f"`{results['command']}`, torch {host['torch']}, {host['date'][:10]}."
    blocks = [f"### {host['gpu']}", f"{run} {CAPTION}"]
    if results["timings"] is not None:
        blocks.append(comparison_table(results["timings"]))
    if "gpu_idle" in results:
        rows = [
            [f"execution={row['execution']}", f"{row['wall_us_per_step']:,.0f}", f"{row['kernels_us_per_step']:,.0f}",
             f"{row['kernels_per_step']:.0f}", f"{row['idle_share']:.1%}"]
            for row in results["gpu_idle"]
        ]  # fmt: skip
        head = ["", "μs per step", "μs in kernels", "kernels", "GPU idle"]
        blocks.append(f"**Kernels and idle time** (the same step)\n\n{markdown_table(head, rows)}")
    return "\n\n".join(blocks)


def comparison_table(part: Results) -> str:
    """The table of a workload; see `benchmarks.compare.measure`."""
    implementations = part["implementations"]
    references = [
        name for name in implementations if any(name in row["speedup_over"] for row in implementations.values())
    ]
    rows = [
        [name, show(row["steps_per_second"], 1), f"{row['images_per_second']['median']:,.0f}",
         *(show(row["speedup_over"][r], 2) if r in row["speedup_over"] else "1" for r in references),
         _memory(row["peak_mib"])]
        for name, row in implementations.items()
    ]  # fmt: skip
    head = ["", "steps/s", "images/s", *(f"speedup over {r}" for r in references), "peak memory, MiB"]
    work = f", {part['gflop_per_step']:.2f} GFLOP per step" if part["gflop_per_step"] else ""
    agreement = part["agreement"]
    first, last = agreement["steps"] - agreement["window"], agreement["steps"]
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in agreement["losses"].items())
    return "\n\n".join([
        f"**{part['title']}** ({part['data']}; {part['parameters']:,} parameters{work})",
        markdown_table(head, rows),
        f"Mean loss of steps {first} to {last}: {losses}.{_left_out(part)}",
    ])  # fmt: skip


def _epochs(part: Results) -> str:
    rows = [
        [name, show(row["seconds_per_epoch"], 2), show(row["vae_train_speedup"], 2), _memory(row["peak_mib"])]
        for name, row in part["implementations"].items()
    ]
    title = f"**One epoch with validation and output files** ({part['title']}, {part['images']:,} images)"
    head = ["", "seconds", "speedup of vae_train over it", "peak memory, MiB"]
    return f"{title}\n\n{markdown_table(head, rows)}{_left_out(part)}"


def _io_overhead(part: Results) -> str:
    seconds = part["seconds"]
    rows = [["all outputs", show(seconds["outputs"], 2)], ["steps and validation alone", show(seconds["bare"], 2)]]
    title = f"**Logging, previews and checkpoints** ({part['title']}, {part['images']:,} images)"
    table = markdown_table([f"{EPOCHS} epochs", "seconds"], rows)
    return f"{title}\n\n{table}\n\nShare of the time: {show_percent(part['share'])}."


def _startup(part: Results) -> str:
    rows = [[f"`{name}`" if name.startswith(("vae --", "python")) else name, show(v, 2)]
            for name, v in part["seconds"].items()]  # fmt: skip
    memory = f"Peak memory of a process that only imports torch: {part['torch_resident_mib']:,} MiB."
    return f"**Start-up**\n\n{markdown_table(['', 'seconds'], rows)}\n\n{memory}"


def _scaling(part: Results) -> str:
    blocks = []
    for name, series in part.items():
        rows = [
            [str(row["value"]), f"{row['gflop_per_step']:,.2f}", show(row["milliseconds"]["vae_train"], 2),
             show(row["milliseconds"]["roofline"], 2), show(row["times_roofline"], 2)]
            for row in series["rows"]
        ]  # fmt: skip
        head = [name, "GFLOP per step", "vae_train, ms per step", "roofline, ms per step", "vae_train / roofline"]
        blocks.append(f"**Cost by {name}** ({series['title']})\n\n{markdown_table(head, rows)}")
    return "\n\n".join(blocks)


def _loading(part: Results) -> str:
    rows = [
        [name, show(row["images_per_second"], 0), show(row["speedup"], 2)]
        for name, row in part["implementations"].items()
    ]
    opening = [
        [name, show(row["seconds"], 2), show(rate, 0) if (rate := row["images_per_second"]) else "–"]
        for name, row in part["opening"].items()
    ]
    agreement = part["agreement"]
    return "\n\n".join([
        f"**Loading** ({part['title']}: {part['data']}; batch {part['batch_size']}, no training)",
        markdown_table(["", "images/s", f"speedup over {part['reference']}"], rows),
        markdown_table(["opening the data", "seconds", "images/s"], opening),
        f"All {agreement['images']:,} images were compared with ImageFolder's: {agreement['share_differing']:.1%} "
        f"differ in their label or by half a level; the largest difference is {agreement['max_difference']:.1g}.",
    ])  # fmt: skip


def _nll(part: Results) -> str:
    rows = [
        ["vae eval", show(part["samples_per_second"], 0), show(part["minutes"], 1)],
        ["matrix products of the decoder alone", show(part["roofline_per_second"], 0), "–"],
    ]
    return "\n\n".join([
        "**-log p(x) by importance sampling** (784-200-200-50-200-200-784, "
        f"{part['chunk']} samples of z per image at a time; {part['flop_per_sample']:,} floating-point operations of "
        "the decoder per sample)",
        markdown_table(["", "samples of z per second", "minutes for 10,000 images, K = 5,000"], rows),
        f"Share of the time in the matrix products: {show_percent(part['share_of_roofline'])}.",
    ])  # fmt: skip


def _apply(part: Results) -> str:
    rates, shares = part["images_per_second"], part["share_of_forward"]
    rows = [
        [name, show(rate, 0), show_percent(shares[name]) if name in shares else "–"] for name, rate in rates.items()
    ]
    memory = ", ".join(f"{peak:,} MiB for {int(count):,} images" for count, peak in part["peak_mib"].items())
    return "\n\n".join([
        f"**`vae apply task=encode csv=false`** (model=conv, images {'x'.join(map(str, part['shape']))}, from opening "
        "the input to the complete folder)",
        markdown_table(["", "images/s", "of the forward pass"], rows),
        f"Peak memory of the process, beside pages of the mapped file: {memory}.",
    ])  # fmt: skip


def _left_out(part: Results) -> str:
    return "".join(f"\n\nLeft out: {name} ({reason})." for name, reason in part["left_out"].items())


def _memory(peak_mib: dict[str, int] | None) -> str:
    return "–" if peak_mib is None else " + ".join(f"{value:,}" for value in peak_mib.values())


def _step_memory(part: Results) -> str:
    shape = f"{part['side']}x{part['side']}x3, batch {part['batch_size']}"
    rows = [[f"model.encoder.checkpointing={key}", f"{value:,}"] for key, value in part["peak_mib"].items()]
    table = markdown_table(["", "peak memory of the process, MiB"], rows)
    return f"**A training step of `model=resnet` at its defaults** ({shape})\n\n{table}"


def show(measurement: Results, digits: int) -> str:
    """Median and range; medians below 10 have at least two decimals, and below 0.1 three."""
    digits = max(digits, 2 if measurement["median"] < 10 else digits) if measurement["median"] >= 0.1 else 3
    median, least, most = (f"{measurement[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least} – {most})"


def show_percent(measurement: Results) -> str:
    """Median and range as percentages."""
    median, least, most = (f"{measurement[key]:.1%}" for key in ("median", "min", "max"))
    return f"{median} ({least} – {most})"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
