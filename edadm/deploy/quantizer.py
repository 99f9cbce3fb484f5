"""The quantizer by which diffusers' own `from_pretrained` loads quantized U-Nets.

It is registered by `edadm.registration`. It has the form of those that are part of diffusers, and nothing
heavy is imported before there is something to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from diffusers.utils import is_accelerate_available

from edadm.config.backends import DEFAULT
from edadm.errors import EdadmError


class EdadmMethod(str, Enum):  # noqa: UP042  # as diffusers' enumeration of methods, which is closed
    """The method of quantization."""

    EDADM = "edadm"


class EdadmConfig(QuantizationConfigMixin):
    """The configuration of a quantized U-Net, in the `config.json` of its folder.

    Args:
        bits: what its file says of widths, for people.
        backend: that computes it, as in `edadm.load`.
        quant_method: always the same.
        others: what later versions may say; the file itself says all that counts.
    """

    def __init__(
        self,
        bits: Mapping[str, Any] | None = None,
        backend: str = DEFAULT,
        quant_method: str = EdadmMethod.EDADM.value,
        **others: Any,
    ) -> None:
        self.quant_method = EdadmMethod(quant_method)
        self.bits, self.backend = bits, backend

    def to_diff_dict(self) -> dict[str, Any]:
        """All of it, of which diffusers makes sentences."""
        found: dict[str, Any] = self.to_dict()
        return found


class EdadmQuantizer(DiffusersQuantizer):
    """The quantizer that puts the network of a file in the place of the empty one that diffusers makes.

    Everything is in the file: codes, grids and what they mean. So diffusers, which knows tensors by the names
    that the empty network has, is told that all is loaded, and fills nothing itself.
    """

    requires_calibration = True

    def __init__(self, quantization_config: EdadmConfig, pre_quantized: bool = True):
        if not pre_quantized:
            raise EdadmError(
                "diffusers does not quantize with edadm, which learns from trajectories; make a file with "
                "`edadm reconstruct`, and load the folder that its save_pretrained writes"
            )
        super().__init__(quantization_config, pre_quantized=pre_quantized)
        self.file: str | None = None
        self.device: Any = None
        self.dtype: Any = None

    def validate_environment(self, *unused: Any, **also_unused: Any) -> None:
        """Refuses to begin where diffusers would end with words about other things.

        Raises:
            EdadmError: diffusers lacks the package that it loads all quantized networks with.
        """
        if not is_accelerate_available():
            raise EdadmError(
                "diffusers loads quantized networks with the package accelerate, which is not installed; "
                "install it with `pip install accelerate`, or load the folder with edadm.load(FOLDER)"
            )

    def update_torch_dtype(self, torch_dtype: Any) -> Any:
        """Notes the type of what is not quantized."""
        self.dtype = torch_dtype
        return torch_dtype

    def update_device_map(self, device_map: Any) -> None:
        """Notes the one device where the network goes, so that nobody else moves it.

        Raises:
            EdadmError: there are several.
        """
        from edadm.deploy.diffusers.folders import one_device

        self.device = one_device(device_map)

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: Sequence[Any]) -> list[str]:
        """Notes the file, of which diffusers need not know the names."""
        self.file = str(checkpoint_files[0])
        return []

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Nothing is missing."""
        return []

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Nothing is left to be filled."""
        return {}

    def _process_model_before_weight_loading(self, model: Any, **unused: Any) -> None:
        from edadm.deploy.load import dtype_named, load

        if self.file is None:
            raise EdadmError(
                "this version of diffusers does not tell quantizers which file is read; load the folder with "
                "edadm.load(FOLDER)"
            )
        found = load(self.file, self.device, self.quantization_config.backend, dtype_named(self.dtype))
        if not isinstance(found, type(model)):
            raise EdadmError(
                f"{self.file} holds another kind of U-Net ({type(found).__name__}) than "
                f"{type(model).__name__}, of which the config.json beside it is; copy the whole folder again"
            )
        model.__dict__, model.__class__ = found.__dict__, type(found)

    def _process_model_after_weight_loading(self, model: Any, **unused: Any) -> Any:
        return model

    def _dequantize(self, model: Any) -> None:
        raise EdadmError(
            "a quantized network keeps its codes; `edadm export FILE --output FOLDER` writes weights in "
            "floating point"
        )

    @property
    def supports_parallel_loading(self) -> bool:
        """There is one file."""
        return False

    @property
    def is_serializable(self) -> bool:
        """The network's own `save_pretrained` writes it."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Codes are not learned any more."""
        return False

    @property
    def is_compileable(self) -> bool:
        """The network is made of PyTorch's modules."""
        return True
