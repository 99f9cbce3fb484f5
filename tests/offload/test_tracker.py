"""Storages that operations make, for as long as somebody holds them."""

from __future__ import annotations

import torch

from edadm.offload.tracker import PeakTracker, StorageTracker


def test_what_is_made_counts_until_nobody_holds_it() -> None:
    with StorageTracker() as tracker:
        a = torch.ones(4, 4)
        b = a * 2
        part = b[1:]
    assert tracker.bytes_alive() == 128
    del b
    assert tracker.bytes_alive() == 128, "a view holds the whole storage"
    del part, a
    assert tracker.bytes_alive() == 0


def test_views_of_foreign_memory_and_results_in_place_do_not_count() -> None:
    weight = torch.ones(8, 8)
    with StorageTracker() as tracker:
        kept = [weight.t(), weight[2:], weight.add_(1), weight.view(64)]
    assert len(kept) == 4
    assert tracker.alive() == {}


def test_what_is_made_outside_does_not_count_and_addresses_used_again_do_not_confuse() -> None:
    with StorageTracker() as tracker:
        for _ in range(50):
            torch.empty(1000)
        kept = torch.empty(10)
    others = [torch.empty(1000) for _ in range(50)]
    assert tracker.bytes_alive() == kept.nbytes == 40
    assert len(others) == 50


def test_the_oldest_come_first() -> None:
    with StorageTracker() as tracker:
        tensors = [torch.empty(size) for size in (3, 1, 2)]
    assert [storage.nbytes() for storage in tracker.alive().values()] == [tensor.nbytes for tensor in tensors]


def test_the_peak_is_the_most_that_was_alive_at_once() -> None:
    with PeakTracker() as tracker:
        torch.ones(100)
        kept = torch.ones(10) + torch.ones(10)
    assert tracker.most == 400
    assert tracker.bytes_alive() == kept.nbytes
