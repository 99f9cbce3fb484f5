"""Whether images belong together, by what their files say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edadm.artifacts import StaleError, describe
from edadm.artifacts.metadata import first_difference

_OF_FULL_PRECISION = ("autoencoder", "condition", "prompts")  # inputs that all variants of a model share


def check_samples(
    samples: Sequence[Path], references: Sequence[Path], simulated: Sequence[Path], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """What the images were made from, after it was compared with that of the images they are compared with.

    Files that say nothing (of edadm 0.1.0, or of others) are not compared.

    Args:
        samples: files of all shards, in order; as are the others.
        references: of full precision, from the same noise.
        simulated: of the same weights, which the images to be scored computed with integers.
        wanted: settings of the evaluation that the reader was given.

    Raises:
        StaleError: names the two files and what they differ in.
    """
    own = _of_shards(samples)
    if own and (found := first_difference(own.get("evaluation", {}), dict(wanted))):
        name, its, asked = found
        raise StaleError(
            f"{samples[0]} was made with {name}: {its}, the evaluation has {asked}; name the images of it"
        )
    inputs = {"references": _OF_FULL_PRECISION, "simulated": (*_OF_FULL_PRECISION, "weights")}
    for role, files in (("references", references), ("simulated", simulated)):
        theirs = _of_shards(files)
        ours: dict[str, Any] = {name: own[name] for name in ("model", "evaluation") if name in own}
        ours["inputs"] = {name: own["inputs"][name] for name in inputs[role] if name in own.get("inputs", {})}
        if found := first_difference(theirs, ours):
            name, its, asked = found
            raise StaleError(
                f"{files[0]} was made with another {name} than {samples[0]} ({its} and {asked}), so they do "
                "not compare; "
                "make both with the same settings"
            )
    return own


def _of_shards(files: Sequence[Path]) -> dict[str, Any]:
    """What the files of all shards have in common; nothing if one does not say."""
    said = [(file, describe(file)) for file in files]
    known = [(file, found["made_from"]) for file, found in said if found and found["kind"] == "samples"]
    if not known or len(known) < len(files):
        return {}
    first, common = known[0][0], {key: value for key, value in known[0][1].items() if key != "shard"}
    for place, (file, made_from) in enumerate(known):
        if made_from["shard"] != place:
            raise StaleError(
                f"{file} holds shard {made_from['shard']}, where shard {place} belongs; name all in order"
            )
        if found := first_difference(made_from, common):
            name, its, asked = found
            raise StaleError(
                f"{file} was made with another {name} than {first} ({its} and {asked}); make it again"
            )
    if len(known) != (shards := common.get("evaluation", {}).get("shards", len(known))):
        raise StaleError(f"{first} is one of {shards} shards, here are {len(known)}; name the files of all")
    if "evaluation" in common:  # no image depends on the number of shards
        common["evaluation"] = {key: of for key, of in common["evaluation"].items() if key != "shards"}
    return common
