"""Figures of an evaluation as lines for the screen and as a Markdown table."""

from __future__ import annotations

import math
from typing import Any

Figures = dict[str, Any]

ROWS = (
    ("elbo", "ELBO (beta = 1), nats", 2),
    ("rate", "rate, nats", 2),
    ("distortion", "distortion, nats", 2),
    ("bits_per_dim", "bits/dim of the ELBO", 4),
    ("gap", "ELBO of training images minus this, nats", 2),
    ("nll", "-log p(x), importance-weighted, nats", 2),
    ("nll_bits_per_dim", "bits/dim of it", 4),
    ("active_units", "active units", 0),
    ("mutual_information", "mutual information of image and z, nats", 2),
    ("total_correlation", "total correlation of z, nats", 2),
    ("dimension_wise_kl", "dimension-wise KL, nats", 2),
    ("linear_probe", "accuracy of a linear probe", 4),
    ("knn_probe", "accuracy of nearest neighbours", 4),
    ("chance", "accuracy of the most frequent class", 4),
    ("mig", "MIG", 3),
    ("sap", "SAP", 3),
    ("dci_disentanglement", "DCI disentanglement", 3),
    ("dci_completeness", "DCI completeness", 3),
    ("dci_informativeness", "DCI informativeness", 3),
    ("factor_vae_score", "FactorVAE score", 3),
    ("beta_vae_score", "beta-VAE score", 3),
    ("modularity", "modularity", 3),
    ("psnr", "PSNR of reconstructions, dB", 2),
    ("ssim", "SSIM of reconstructions", 4),
    ("ms_ssim", "MS-SSIM of reconstructions", 4),
    ("frechet_distance", "Fréchet distance of samples", 2),
    ("kernel_distance", "kernel distance of samples", 5),
    ("precision", "precision of samples", 3),
    ("recall", "recall of samples", 3),
    ("density", "density of samples", 3),
    ("coverage", "coverage of samples", 3),
    ("auroc", "AUROC against other data", 4),
)
"""Figures by name, what they are called unless they say otherwise ("called"), and their decimals."""


def shown(figure: dict[str, Any], decimals: int) -> str:
    """A value with its standard error, where it has one."""
    text = f"{figure['value']:.{decimals}f}"
    if "of" in figure:
        return f"{text} of {figure['of']}"
    se = figure.get("se")
    return text if se is None or math.isnan(se) else f"{text} ± {se:.{decimals}f}"


def conditions(figure: dict[str, Any]) -> str:
    """What stands beside a figure: the number of images, and of draws."""
    words = [f"{figure['count']:,} images"] if "count" in figure else []
    if "draws" in figure:
        words.append(f"K = {figure['draws']:,}")
    return ", ".join([*words, *([figure["by"]] if "by" in figure else [])])


def _subject(figures: Figures) -> str:
    """What was scored: a split, and the prior that was fitted afterwards where there is one."""
    return figures["split"] + (f", prior={figures['prior']}" if figures.get("prior") else "")


def lines(figures: Figures) -> list[str]:
    """What is printed: what everyone looks at first, then whatever else there is, one line each."""
    first = f"{_subject(figures):<6} "
    if figures["elbo"] is not None:
        first += f"ELBO {shown(figures['elbo'], 2)} nats   rate {figures['rate']['value']:.2f}   "
    first += f"distortion {figures['distortion']['value']:.2f}"
    if figures["bits_per_dim"] is not None:
        first += f"   {figures['bits_per_dim']['value']:.4f} bits/dim"
    found = [first]
    for name, title, decimals in ROWS[4:]:
        if figures.get(name) is not None:
            called = figures[name].get("called", title)
            found.append(f"{called:<42} {shown(figures[name], decimals):<20} {conditions(figures[name])}".rstrip())
    found.append(f"beta = 1, {figures['images']:,} images, {figures['num_samples']} draw"
                 f"{'s' if figures['num_samples'] > 1 else ''} of z per image · {figures['protocol']}")  # fmt: skip
    return found + [figures[name] for name in ("warning", "diagnosis") if figures.get(name)]


def markdown(name: str, figures: Figures) -> str:
    """The table of one run: every figure that there is, and why others are missing."""
    rows = [f"# {name}: {_subject(figures)}", "", figures["protocol"] + ".", ""]
    rows += ["| figure | value | measured on |", "| --- | --- | --- |"]
    for key, title, decimals in ROWS:
        figure = figures.get(key)
        if figure is not None:
            called = figure.get("called", title)
            rows.append(f"| {called} | {shown(figure, decimals)} | {conditions(figure)} |")
        elif key in figures.get("why", {}):
            rows.append(f"| {title} | – | {figures['why'][key]} |")
    for key in ("warning", "diagnosis"):
        if figures.get(key):
            rows += ["", f"**{figures[key]}**"]
    rows += ["", *(f"![]({picture})" for picture in figures.get("pictures", []))]
    return "\n".join(rows).rstrip() + "\n"


def cost(figures: Figures) -> float:
    """What runs are ordered by: the -ELBO, or the distortion of a model that has no bound."""
    return -figures["elbo"]["value"] if figures["elbo"] is not None else figures["distortion"]["value"]


def comparison(found: list[tuple[str, Figures]]) -> str:
    """Many runs side by side: a Markdown table with the figures that any of them has, lowest `cost` first."""
    names = [(key, title, decimals) for key, title, decimals in ROWS if any(f.get(key) is not None for _, f in found)]
    rows = ["| run | " + " | ".join(title for _, title, _ in names) + " |", "| --- |" + " --- |" * len(names)]
    for run, figures in sorted(found, key=lambda pair: cost(pair[1])):
        cells = [shown(figures[k], d) if figures.get(k) is not None else "–" for k, _, d in names]
        rows.append(f"| {run} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"
