from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from vae_train.util.live_memory import peak_bytes

SIZE = 4 * 1000
"""Bytes of one tensor below."""


def test_tensors_count_until_they_are_freed_and_views_do_not_count():
    def several():
        first = torch.ones(1000)
        second = first + 1
        del first
        third = second.view(10, 100).exp_()
        return third.T * 2

    assert peak_bytes(several) == 2 * SIZE


def test_what_existed_before_does_not_count():
    before = torch.ones(1000)
    assert peak_bytes(lambda: before.view(10, 100).add_(1)) == 0
    assert peak_bytes(lambda: before * 2) == SIZE


def test_what_the_backward_pass_keeps_counts():
    h = torch.ones(1000, requires_grad=True)

    def block(h):
        for _ in range(5):
            h = h.exp()
        return h

    def twice(function):
        torch.autograd.grad(function(function(h)).sum(), h)

    plain = peak_bytes(lambda: twice(block))
    assert 10 * SIZE <= plain <= 13 * SIZE
    again = peak_bytes(lambda: twice(lambda h: checkpoint(block, h, use_reentrant=False)))
    assert 6 * SIZE <= again <= 10 * SIZE
    assert again < plain
