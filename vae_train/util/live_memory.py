"""The peak memory of the tensors that a computation creates."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override


def peak_bytes(function: Callable[[], object]) -> int:
    """Calls a function and returns the largest number of bytes that its tensors occupied at one time.

    It counts results of all operations, including those of backward passes, until they are freed, on any device.
    Scratch memory within operations is not visible.
    """
    with _LiveStorages() as storages:
        result = function()
    del result
    return storages.peak


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of new storages."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._live = 0
        self._known = dict[int, weakref.ref[torch.UntypedStorage]]()

    @override
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        before = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        results = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor) and _address(leaf) not in before:
                self._add(leaf.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: Any) -> None:
            self._live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self._live += size
        self.peak = max(self.peak, self._live)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
