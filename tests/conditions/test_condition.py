"""Labels and prompts by image index, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from edadm.conditions.classes import ClassCondition, ClassEmbedding
from edadm.conditions.condition import build_condition_network, make_condition
from edadm.conditions.order import shuffled
from edadm.conditions.text import read_prompts
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning, TextEncoder


def test_labels_stand_equally_often_in_an_order_of_the_seed() -> None:
    embedding = ClassEmbedding(10, 4)
    settings = Conditioning(kind="classes", classes=10, images_per_class=5)
    first, again = ClassCondition(embedding, settings), ClassCondition(embedding, settings)
    other = ClassCondition(embedding, settings.model_copy(update={"seed": 1}))
    assert first.labels == again.labels
    assert first.labels != other.labels
    assert first.labels != sorted(first.labels)
    assert Counter(first.labels) == dict.fromkeys(range(10), 5)


def test_classes_can_be_chosen_but_must_exist() -> None:
    settings = Conditioning(kind="classes", classes=10, images_per_class=3, only=(7, 2))
    assert Counter(ClassCondition(ClassEmbedding(10, 4), settings).labels) == {7: 3, 2: 3}
    with pytest.raises(ValidationError, match="there is no class 10; classes are counted from 0 to 9"):
        Conditioning(kind="classes", classes=10, only=(3, 10))
    with pytest.raises(ValidationError):
        Conditioning(kind="classes", only=(-1,))


def test_the_order_is_known_and_complete() -> None:
    assert sorted(shuffled(20, 1234, "label")) == list(range(20))
    assert shuffled(5, 1234, "label") == sorted(range(5), key=shuffled(5, 1234, "label").index)
    assert shuffled(20, 1234, "label") != shuffled(20, 1234, "prompt")


def test_more_images_than_labels_are_refused() -> None:
    settings = Conditioning(kind="classes", classes=10, images_per_class=2)
    with pytest.raises(
        EdadmError, match=r"21 images exceed the 20 labels; raise conditioning\.images_per_class"
    ):
        make_condition(ClassEmbedding(10, 4), settings, 21)


def write_captions(path: Path, captions: list[str]) -> Path:
    path.write_text(
        json.dumps(
            {
                "annotations": [
                    {"id": i, "image_id": i, "caption": caption} for i, caption in enumerate(captions)
                ]
            }
        )
    )
    return path


def test_captions_are_shuffled_and_lines_are_not(tmp_path: Path) -> None:
    captions = [f"caption {number} " for number in range(30)]
    path = write_captions(tmp_path / "captions.json", captions)
    prompts = read_prompts(path, 1234)
    assert sorted(prompts) == sorted(caption.strip() for caption in captions)
    assert prompts == read_prompts(path, 1234) != [caption.strip() for caption in captions]
    assert prompts != read_prompts(path, 1)
    (tmp_path / "prompts.txt").write_text("one\n\n two \n")
    assert read_prompts(tmp_path / "prompts.txt", 1234) == ["one", "two"]


def test_prompts_of_a_list_keep_their_order(tmp_path: Path) -> None:
    """What `write-prompts` wrote makes the same images again."""
    (tmp_path / "prompts.json").write_text(json.dumps(["one", "two", "three"]))
    assert read_prompts(tmp_path / "prompts.json", 1234) == ["one", "two", "three"]


def test_an_absent_prompts_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match=r"absent\.txt cannot be read as prompts .*; give a text file with"):
        read_prompts(tmp_path / "absent.txt", 0)


def test_fewer_prompts_than_images_are_refused_before_anything_runs(tmp_path: Path) -> None:
    path = write_captions(tmp_path / "captions.json", ["a", "b"])
    encoder = TextEncoder(channels=8, hidden_channels=16, layers=1, heads=2, tokens=8)
    settings = Conditioning(kind="text", prompts=str(path), encoder=encoder)
    network = build_condition_network(settings, 8)
    with pytest.raises(
        EdadmError, match=r"3 images exceed the 2 prompts of .*; add prompts or make fewer images"
    ):
        make_condition(network, settings, 3)
    rows = make_condition(network, settings, 2).rows([0])["context"]
    assert rows.shape == (1, 8, 8)
    assert rows.dtype == torch.float32
