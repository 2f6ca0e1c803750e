"""Classes are told from aliases of generic types, which Python 3.10 takes for classes."""

from collections.abc import Sequence

from vae_train.util.classes import is_class


def test_aliases_are_no_classes() -> None:
    assert is_class(dict)
    assert not any(map(is_class, (dict[str, int], list[int], Sequence[int], int | str, "dict", None)))
