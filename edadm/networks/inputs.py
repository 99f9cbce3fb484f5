"""What a network is given: named tensors with a row per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.config.schema import Model

TOLD = (
    "context",
    "context_mask",
    "pooled",
    "time_ids",
    "score",
    "ids",
    "image",
    "labels",
)  # that a network can be told, in order
NAMES = ("latents", "timesteps", *TOLD)  # that an input can have
MASK = "context_mask"  # of which numbers are 0 or 1
WHOLE = ("timesteps", "time_ids", "labels")  # inputs of whole numbers, but for timesteps of a flow


def replaced(unconditional: Collection[str]) -> list[frozenset[str]]:
    """Of each evaluation that guidance needs the inputs that are told nothing; of the last one none.

    Args:
        unconditional: names of inputs that guidance replaces. An image among them is replaced once only, so
            that there is a scale for it and one for the rest (arXiv 2211.09800, eq. 3).
    """
    names = frozenset(unconditional)
    between = [names - {"image"}] if "image" in names and len(names) > 1 else []
    return [names, *between, frozenset()]


@dataclass(frozen=True)
class Rows:
    """Inputs of a network by name, each tensor with a row per image along its first axis.

    Args:
        tensors: `latents` (n, c, h, w) and `timesteps` (n,) in every network; `context` (n, k, e) in one
            that attends to tokens, with `context_mask` (n, k) where only those count whose number in it is 1
            and not 0, `pooled` (n, e) and `time_ids` (n, numbers) in one that adds them to its
            time embedding, `score` (n, 1) beside them in SDXL's refiner, `ids` (n, k, axes) in one that is
            told where its tokens lie, `image` (n, k, h, w) in one that is given it behind the noise, `labels`
            (n, 1) in one that is told a class by its number.

    Raises:
        ValueError: the tensors have different numbers of rows.
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        counts = {name: tensor.shape[0] for name, tensor in self.tensors.items()}
        first = next(iter(counts.values()), 0)
        if any(count != first for count in counts.values()):  # no set: counts are symbols while one exports
            raise ValueError(f"inputs of a network have one number of rows, not {counts}")

    @classmethod
    def of(cls, given: Mapping[str, Tensor], prefix: str = "") -> Rows:
        """The rows among tensors by name, each behind `prefix`; tensors of other names stay behind."""
        return cls({name: given[prefix + name] for name in NAMES if prefix + name in given})

    @classmethod
    def concatenated(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, which have the same names, one after the other."""
        names = parts[0].tensors
        return cls({name: torch.cat([part.tensors[name] for part in parts]) for name in names})

    @property
    def latents(self) -> Float[Tensor, " n *s"]:
        """The states x_t."""
        return self.tensors["latents"]

    @property
    def timesteps(self) -> Int[Tensor, " n"] | Float[Tensor, " n"]:
        """The t of each state, whole numbers but for a flow's."""
        return self.tensors["timesteps"]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.latents.device

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, chosen: slice | Tensor) -> Rows:
        return Rows({name: tensor[chosen] for name, tensor in self.tensors.items()})

    def split(self, size: int) -> list[Rows]:
        """Batches of at most `size` rows, in order."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def guided(self, unconditional: Mapping[str, Tensor]) -> Rows:
        """Every row twice, as classifier-free guidance evaluates it: the unconditional rows stand first.

        Where an image is among what is replaced, rows with their own image and without the rest stand
        between.

        Args:
            unconditional: one row by name, of what these rows are told in place of their own.
        """
        evaluated = replaced(unconditional)

        def every(name: str, tensor: Tensor) -> Tensor:
            return torch.cat(
                [unconditional[name].expand_as(tensor) if name in names else tensor for names in evaluated]
            )

        return Rows({name: every(name, tensor) for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Rows:
        """The rows on another device."""
        return Rows({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def cast(self, dtype: torch.dtype) -> Rows:
        """The rows with their floating-point numbers in another type; indices and timesteps stay."""
        stays = ("timesteps",)  # a flow's would be other ones in half precision
        return Rows(
            {
                name: tensor.to(dtype) if tensor.is_floating_point() and name not in stays else tensor
                for name, tensor in self.tensors.items()
            }
        )


@dataclass(frozen=True)
class InputSpec:
    """Which inputs a network takes.

    Args:
        shapes: of one row of each input by name; () for one number, such as a timestep.
        timesteps: of the noise schedule; timesteps lie in 0 .. timesteps - 1.
    """

    shapes: Mapping[str, tuple[int, ...]]
    timesteps: int = 1000

    @classmethod
    def of(cls, model: Model) -> InputSpec:
        """The inputs of a model's network."""
        own: dict[str, tuple[int, ...]] = {"latents": model.latent_shape, "timesteps": ()}
        return cls(own | model.condition_shapes, model.schedule.timesteps)

    def zeros(
        self, rows: int = 1, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float
    ) -> Rows:
        """Inputs of nothing but zeros; one row is the smallest input there is."""
        types = dict.fromkeys(WHOLE, torch.long)
        return Rows(
            {
                name: torch.zeros(rows, *shape, device=device, dtype=types.get(name, dtype))
                for name, shape in self.shapes.items()
            }
        )

    def random(self, rows: int, device: torch.device | str) -> Rows:
        """Standard normal inputs, latents channels last; a middle timestep, the first class, and no mask."""
        drawn = {
            name: torch.full((rows, *shape), 0 if name == "labels" else self.timesteps // 2, device=device)
            if name in WHOLE
            else torch.randn(rows, *shape, device=device)
            for name, shape in self.shapes.items()
        }
        if MASK in drawn:
            drawn[MASK] = torch.ones_like(drawn[MASK])
        latents = drawn["latents"].contiguous(memory_format=torch.channels_last)
        return Rows(drawn | {"latents": latents})
