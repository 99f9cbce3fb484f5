"""A vocabulary of given words, in CLIP's form."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import CLIPTokenizer

from edadm.conditions.text import build, token_ids
from edadm.conditions.words import CLIPS, merges_of, vocabulary_size, write_tokenizer
from edadm.config.load import load_config
from edadm.networks.settings.parts import Conditioning, TextEncoder

WORDS = ("photo", "of", "horse", "orange", "or", "red", "redder")
TEXTS = ["a photo of an orange horse", "Redder, or red?", "", "2 horses!", "photo " * 30]


def test_each_word_is_one_token_whatever_it_shares_with_others() -> None:
    merges = merges_of(WORDS)
    assert len(set(merges)) == len(merges)
    ids = token_ids([" ".join(WORDS)], 16, words=WORDS)[0].tolist()
    assert len(set(ids[1:8])) == 7
    assert ids[0] == vocabulary_size(WORDS) - 2
    assert ids[8:] == [vocabulary_size(WORDS) - 1] * 8
    assert vocabulary_size(WORDS) == 514 + len(merges)
    assert vocabulary_size(None) == CLIPS == 49408


def test_all_words_of_the_preset_are_whole() -> None:
    told = load_config().models["cifar10_latent_text"].conditioning
    assert told is not None
    assert told.encoder.words is not None
    size = vocabulary_size(told.encoder.words)
    for word in told.encoder.words:
        assert token_ids([f"a {word}"], 6, words=told.encoder.words)[0, 3] == size - 1


def test_transformers_reads_the_same_tokens(tmp_path: Path) -> None:
    write_tokenizer(WORDS, 12, tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert len(tokenizer) == vocabulary_size(WORDS)
    found = tokenizer(TEXTS, padding="max_length", truncation=True)["input_ids"]
    assert found == token_ids(TEXTS, 12, words=WORDS).tolist()


def test_the_encoder_has_as_many_embeddings() -> None:
    sizes = TextEncoder(channels=8, hidden_channels=8, layers=1, heads=1, tokens=6, words=WORDS)
    encoder = build(Conditioning(kind="text", prompts="p.txt", encoder=sizes), 8)
    assert encoder.config.eos_token_id == vocabulary_size(WORDS) - 1
    assert encoder(token_ids(TEXTS, 6, words=WORDS)).last_hidden_state.shape == (5, 6, 8)


@pytest.mark.parametrize("word", ["a", "Red", "ice cream", "über"])
def test_words_are_of_small_letters(word: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        TextEncoder(words=(word,))
