"""Command lines with typing errors."""

from __future__ import annotations

import random
from collections.abc import Iterator

LINES = (
    "train data=digits beta=4 lr=1e-3 epochs=1 plan=true",
    "train model=conv latent_dim=32 optimizer=adamw plan=true",
    "train objective=tcvae objective.beta=6 model/posterior=gaussian plan=true",
    "train -m beta=1,2,4 seed=0,1 sweep=first plan=true",
    "train model.encoder.hidden=[64,64] batch_size=64 device=cpu plan=true",
    "train data=folder data.root=photos augmentation.crop=4 plan=true",
    "train model/prior=vamp model/likelihood=bernoulli plan=true",
    "train resume=last epochs=60",
    "train init_from=last out=x name=y plan=true",
    "eval run=last k=100 split=valid",
    "sample run=last num=16 temperature=0.7 label=3",
    "sample run=last show=interpolate,extremes format=png,svg num=2 frames=3 images=[1,2] split=valid",
    "export run=last format=pt2,safetensors checkpoint=last license=mit out=model overwrite=true",
    "fit-prior run=last prior=gmm prior.components=20",
    "data data=digits",
    "reproduce run=last",
    "sweep sweep=first metric=elbo goal=max format=svg",
    "report run=[last,other] out=page.html split=test",
)
CHARACTERS = "=,[]{}()'\"\\$:~+-@#*%&|<>?!. \tabc019_äß漢"
VALUES = (
    "",
    "nan",
    "inf",
    "-1",
    "1e300",
    "10" * 40,
    "x" * 4_000,
    "null",
    "true",
    "[1,2]",
    "{a:1}",
    "${nope}",
    "${oc.env:HOME}",
)
VALUES_MORE = (
    "glob(*)",
    "interval(0,1)",
    "range(1,3)",
    "choice(a,b)",
    "'",
    '"',
    "a=b",
    "~",
    "../..",
    "é",
    "(1,2)",
    "1,2",
)


def command_lines(rng: random.Random, rounds: int) -> Iterator[list[str]]:
    """Mistyped variants of valid command lines, `rounds` times 15 of them.

    Args:
        rng: chooses what is mistyped.
        rounds: how many variants of every line there are.
    """
    edits = (_edit_character, _replace_value, _drop_word, _double_word, _join_words, _edit_key)
    for line in LINES:
        for _ in range(rounds):
            words = line.split(" ")
            for _ in range(rng.choice((1, 1, 2))):
                words = rng.choice(edits)(words, rng)
            yield words


def _place(words: list[str], rng: random.Random) -> int:
    return rng.randrange(1, len(words)) if len(words) > 1 else 0


def _edit_character(words: list[str], rng: random.Random) -> list[str]:
    number = _place(words, rng)
    word, at = words[number], rng.randrange(len(words[number]) + 1)
    cut = rng.choice((0, 1))
    return [
        *words[:number],
        word[:at] + rng.choice(CHARACTERS) * rng.choice((0, 1)) + word[at + cut :],
        *words[number + 1 :],
    ]


def _replace_value(words: list[str], rng: random.Random) -> list[str]:
    number = _place(words, rng)
    key = words[number].partition("=")[0]
    return [*words[:number], f"{key}={rng.choice(VALUES + VALUES_MORE)}", *words[number + 1 :]]


def _drop_word(words: list[str], rng: random.Random) -> list[str]:
    number = _place(words, rng)
    return words[:number] + words[number + 1 :] if number else words


def _double_word(words: list[str], rng: random.Random) -> list[str]:
    return [*words, words[_place(words, rng)]] if len(words) > 1 else words


def _join_words(words: list[str], rng: random.Random) -> list[str]:
    return [*words[:-2], words[-2] + words[-1]] if len(words) > 2 else words


def _edit_key(words: list[str], rng: random.Random) -> list[str]:
    number = _place(words, rng)
    key, equals, value = words[number].partition("=")
    changed = rng.choice(
        (f"--{key}", f"+{key}", f"~{key}", f"model.{key}", key.upper(), f"{key}s", key.replace("/", "."), "")
    )
    return [*words[:number], changed + equals + value, *words[number + 1 :]]
