"""The same settings are the same, in whatever order and spelling, and others are not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from edadm.artifacts.digest import sha256_of
from edadm.config.load import load_config
from edadm.config.schema import Bits, Config, Reconstruction
from edadm.config.stated import settings_of

KINDS = ("models", "calibrations", "bits", "reconstructions", "evaluations")
WRITTEN = {
    "results": "results",
    "runs": [{"model": "mine", "variants": ["fp32", "some/w4/slow"], "evaluation": "few"}],
    "models": {
        "mine": {
            "base": "cifar10_small",
            "sampler": {"steps": 20, "spacing": "quadratic", "eta": 0.5},
            "trajectories": {"count": 64, "batch_size": 16, "seed": 3},
        }
    },
    "calibrations": {"some": {"selector": "tdac", "size": 32, "lambda": 1.25, "radius": 0.001}},
    "bits": {
        "w4": {
            "base": "w4a8",
            "layers": {
                "conv_in": {"weights": 8, "activations": 8},
                "down_*": {"weights": 6, "activations": 8},
            },
        }
    },
    "reconstructions": {
        "slow": {"base": "fbr_w4", "weight_lr": 0.001, "unit_iterations": {"conv_in": 10, "mid_block*": 20}}
    },
    "evaluations": {"few": {"images": 100, "seed": 1, "scores": ["fid", "kid"]}},
}
SPELLINGS = {
    "0.001": ("1e-3", "1.0E-3", ".001", "+0.001"),
    "1.25": ("125e-2", "1.250"),
    "64": ("0x40", "+64"),
    "0.5": (".5", "5e-1"),
}


def written(settings: Any, chance: random.Random) -> str:
    """Settings as YAML, their keys in another order, their numbers in another spelling."""
    if isinstance(settings, dict):
        entries = [f"{key}: {written(value, chance)}" for key, value in settings.items()]
        return "{" + ", ".join(chance.sample(entries, len(entries))) + "}"
    if isinstance(settings, list):
        return "[" + ", ".join(written(value, chance) for value in settings) + "]"
    text = json.dumps(settings)
    return chance.choice((text, *SPELLINGS.get(text, ())))


def stated(config: Config) -> dict[str, str]:
    """The digest of every preset, by the place of what is made with it."""
    digests = {
        f"{kind}/{name}": sha256_of(settings_of(preset))
        for kind in KINDS
        for name, preset in getattr(config, kind).items()
    }
    return digests | {"runs": sha256_of([run.model_dump(mode="json") for run in config.runs])}


def test_order_and_spelling_are_nothing_to_paths_and_digests(tmp_path: Path) -> None:
    found = []
    for seed in range(6):
        file = tmp_path / f"{seed}.yaml"
        file.write_text(written(WRITTEN, random.Random(seed)))
        found.append(load_config(file))
    assert len({(tmp_path / f"{seed}.yaml").read_text() for seed in range(6)}) == 6
    assert all(stated(config) == stated(found[0]) for config in found)
    assert found[0].calibrations["some"].radius == 0.001
    other = load_config(json.loads(json.dumps(WRITTEN).replace("0.001", "0.0011")))
    differing = {name for name, digest in stated(other).items() if digest != stated(found[0])[name]}
    assert differing == {"calibrations/some", "reconstructions/slow"}


@pytest.mark.parametrize(
    ("one", "other", "decides"),
    [
        ("conv_in", "conv_out", False),
        ("conv_in", "down_blocks.*", False),
        ("conv_in", "conv_*", True),
        ("down_*", "*.conv1", True),
    ],
)
def test_the_order_of_patterns_counts_where_the_last_of_them_decides(
    one: str, other: str, decides: bool
) -> None:
    def digests(*order: tuple[str, int]) -> list[str]:
        layers = {pattern: {"weights": bits, "activations": 8} for pattern, bits in order}
        bits = Bits.model_validate({"weights": 4, "activations": 8, "layers": layers})
        return [sha256_of(settings_of(made)) for made in (bits, Reconstruction(unit_iterations=dict(order)))]

    there, back = digests((one, 8), (other, 6)), digests((other, 6), (one, 8))
    assert [a != b for a, b in zip(there, back, strict=True)] == [decides, decides]
    assert digests((one, 8), (other, 8)) == digests((other, 8), (one, 8))
