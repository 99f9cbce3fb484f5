"""Paused forward passes go from unit to unit: each unit sees its inputs without a start from the beginning.

A pass runs in a greenlet. Hooks on the units hand control back to the caller before and after each unit; the
rest of the network's state (skips, time embedding) waits in the suspended Python frames. Whatever the caller
changes in a module while the pass waits, the pass meets when it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from edadm.learning.capture.arguments import Arguments, learned_part
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.offload.cache import Memory
from edadm.offload.paused import PausedMemory
from edadm.offload.tracker import storages


class _Pass(greenlet):
    """A suspended forward pass over one batch."""


def _yield_to_caller(event: Any) -> None:
    current = getcurrent()
    if isinstance(current, _Pass):
        current.parent.switch(event)
        # The caller may have been learning; grad mode is per thread, not per greenlet.
        torch.set_grad_enabled(False)


class PausingNetwork:
    """A network whose forward passes can be stepped from unit to unit.

    Args:
        unet: the network; hooks stay on it until `close`.
        units: names of its units in order of execution.
        memory: where its passes wait; without one, or without limits, what they hold stays on the device.
    """

    def __init__(self, unet: nn.Module, units: Sequence[str], memory: Memory | None = None):
        self.unet = unet
        self.memory = memory if memory is not None and memory.is_limited else None
        self._handles = []
        for name in units:
            module = unet.get_submodule(name)
            self._handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs: _yield_to_caller((args, kwargs)), with_kwargs=True
                )
            )
            self._handles.append(
                module.register_forward_hook(lambda _, args, output: _yield_to_caller(output))
            )

    def start(self, rows: Rows) -> PausedForward:
        """A paused pass over a batch of network inputs, which waits before its first unit."""
        return PausedForward(self.unet, rows, self.memory)

    def close(self) -> None:
        """Removes the hooks from the network's units."""
        for handle in self._handles:
            handle.remove()


class PausedForward:
    """A paused forward pass waits before a unit and behind it, by turns.

    Before a unit, the storages that it holds are kept in `memory`, if one is given; behind a unit all of them
    are on the device.
    """

    def __init__(self, unet: nn.Module, rows: Rows, memory: Memory | None = None):
        self._memory = PausedMemory(memory) if memory is not None else None
        self._pass = _Pass(lambda: network_call(unet, rows))
        # A greenlet would start without the caller's context variables.
        self._pass.gr_context = copy_context()
        self._is_before_unit = False
        self._event = self._switch()
        self.rest()

    def _switch(self) -> Any:
        learning = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        try:
            with self._memory or nullcontext():
                event = self._pass.switch()
        finally:
            torch.set_grad_enabled(learning)
        self._is_before_unit = not self._is_before_unit
        return event

    def arguments(self) -> Arguments:
        """The arguments of the unit in front of the pass, on the device until `rest` or `next_unit`."""
        assert self._is_before_unit, "the pass waits behind a unit; call `next_unit` first"
        if self._memory is not None:
            self._memory.use(list(storages(self._event)))
        return Arguments.of(*self._event)

    def rest(self) -> None:
        """Keeps all storages of the pass within the limits again, those of `arguments` included."""
        if self._memory is not None:
            self._memory.settle()

    def run_unit(self) -> Tensor:
        """Runs the unit in front of the pass, as it is now, and returns its output."""
        self.arguments()
        self._event = None
        self._event = self._switch()
        return learned_part(self._event)

    def next_unit(self) -> None:
        """Lets the pass go on to the next unit; after the last one, to the end of the network."""
        self._event = None  # the unit's output belongs to the pass alone
        self._event = self._switch()
        if self._pass.dead:
            self._event = None
        self.rest()

    def advance(self) -> None:
        """Runs the unit in front of the pass and goes on to the next one."""
        self.run_unit()
        self.next_unit()
