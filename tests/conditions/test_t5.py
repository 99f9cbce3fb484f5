"""Prompts by T5: tokens of both kinds of files, masks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.conditions.condition import build_condition_network, make_condition
from edadm.conditions.t5_tokens import fitted, tokenizer_of
from edadm.errors import EdadmError
from edadm.networks.layouts.t5 import tokenizer_file
from edadm.networks.settings.parts import Conditioning
from edadm.networks.weights import CheckpointError

from ..networks.pixart import sentencepiece

SIZES = {"channels": 8, "hidden_channels": 16, "layers": 1, "heads": 1, "vocabulary": 40, "tokens": 6}


def settings(folder: Path, **changes: object) -> Conditioning:
    (folder / "prompts.txt").write_text("A picture OF boats \nxyz\n")
    told = {"kind": "t5", "t5": SIZES | changes, "prompts": str(folder / "prompts.txt"), "time_ids": [64, 32]}
    return Conditioning.model_validate(told)


def test_pieces_are_the_likeliest_padded_and_cut_with_an_end() -> None:
    tokenizer = fitted(tokenizer_of(sentencepiece()), 6)
    short, long = tokenizer.encode_batch(["a picture  of boats", "abcdefgh"])
    assert (short.ids, short.attention_mask) == ([3, 4, 5, 6, 1, 0], [1, 1, 1, 1, 1, 0])
    assert (long.ids, long.attention_mask) == ([3, 9, 10, 11, 12, 1], [1] * 6)
    assert tokenizer.encode("").ids == [1, 0, 0, 0, 0, 0]
    assert tokenizer.encode("a\u00e9").ids == [3, 2, 1, 0, 0, 0]


def test_a_tokenizer_json_means_the_same() -> None:
    written = tokenizer_of(sentencepiece()).to_str().encode()
    one, other = (fitted(tokenizer_of(content), 9) for content in (sentencepiece(), written))
    assert one.encode("a boat of </s>").ids == other.encode("a boat of </s>").ids


@pytest.mark.parametrize("content", [b"", b"{}", sentencepiece()[:-9], b"\x0a\xff\xff\xff", b"\xff" * 12])
def test_another_file_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(EdadmError, match=r"neither a tokenizer\.json nor a SentencePiece model of unigrams"):
        tokenizer_of(content)


def test_rows_are_the_same_whatever_their_batch_and_say_what_counts(tmp_path: Path) -> None:
    told = settings(tmp_path)
    network = build_condition_network(told, 8).eval()
    network.tokenizer = sentencepiece()
    condition = make_condition(network, told, 2)
    both, one, nothing = condition.rows([0, 1]), condition.rows([1]), condition.unconditional()
    assert both["context_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0]]
    assert nothing["context_mask"].tolist() == [[1, 0, 0, 0, 0, 0]]
    torch.testing.assert_close(both["context"][1:], one["context"])
    assert both["time_ids"].tolist() == [[64, 32]] * 2
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in both.items()}
    assert shapes == told.shapes(8)


def test_a_tokenizer_of_more_tokens_than_the_encoder_is_refused(tmp_path: Path) -> None:
    told = settings(tmp_path, vocabulary=20)
    network = build_condition_network(told, 8)
    network.tokenizer = sentencepiece()
    with pytest.raises(EdadmError, match="the tokenizer has 34 tokens, and T5's encoder 20"):
        make_condition(network, told, 2)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds no tokenizer of T5 \(tokenizer/tokenizer.json or spiece"
    ):
        tokenizer_file(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    for name in ("spiece.model", "tokenizer.json"):
        (tmp_path / "tokenizer" / name).write_text("")
        assert tokenizer_file(tmp_path / "text_encoder").name == name
