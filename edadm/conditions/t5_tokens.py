"""T5's tokenizer from its file: a `tokenizer.json`, or the SentencePiece model that published folders hold.

Such a model is a message of protocol buffers (sentencepiece_model.proto of google/sentencepiece), of which a
few fields say all that T5 needs; the package sentencepiece is not asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edadm.errors import EdadmError

JSON, SENTENCEPIECE = "tokenizer.json", "spiece.model"  # names of the two kinds of files
_PAD, _END = "<pad>", "</s>"
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of a model
_TEXT, _SCORE, _KIND = 1, 2, 3  # of a piece
_MODEL_TYPE, _UNIGRAM = 3, 1  # of how it was trained
_CHARACTERS = 2  # of how text is normalised
_UNKNOWN = 2  # the kind of the piece that stands for what is in no other
_SPACE = "\u2581"  # stands for a space in pieces


def tokenizer_of(content: bytes) -> Any:
    """The tokenizer that a file describes, as of the package tokenizers.

    Args:
        content: of the file.

    Raises:
        EdadmError: it is neither of the two kinds, or damaged.
    """
    from tokenizers import Tokenizer

    try:
        if content[:1] == b"{":
            return Tokenizer.from_str(content.decode("utf-8"))
        return _of_pieces(content)
    except Exception as error:  # tokenizers raises no other class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdadmError(
            f"the tokenizer of T5 is neither a tokenizer.json nor a SentencePiece model of unigrams "
            f"({reason}); fetch the pipeline's folder `tokenizer` again"
        ) from None


def with_json(file: Path) -> None:
    """Writes the tokenizer of a SentencePiece model beside it, unless there is one.

    transformers reads it without sentencepiece and protobuf, which edadm does not install.

    Raises:
        EdadmError: the model cannot be read.
    """
    if not (other := file.with_name(JSON)).exists():
        other.write_text(tokenizer_of(file.read_bytes()).to_str(pretty=True), encoding="utf-8")


def fitted(tokenizer: Any, length: int) -> Any:
    """The same tokenizer, which pads and cuts to a length, the end of the text included."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(_PAD) or 0, pad_token=_PAD)
    return tokenizer


def _of_pieces(content: bytes) -> Any:
    """T5's tokenizer of a SentencePiece model: pieces by likelihood, and the end of the text behind them."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary: list[tuple[str, float]] = []
    unknown, characters = 0, b""
    for field, value in _fields(content):
        if field == _PIECES:
            piece = dict(_fields(value))
            unknown = len(vocabulary) if piece.get(_KIND) == _UNKNOWN else unknown
            score = struct.unpack("<f", piece[_SCORE])[0] if _SCORE in piece else 0.0
            vocabulary.append((piece[_TEXT].decode("utf-8"), score))
        elif field == _TRAINER and dict(_fields(value)).get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM:
            raise ValueError("its pieces are no unigrams")
        elif field == _NORMALIZER:
            characters = dict(_fields(value)).get(_CHARACTERS, b"")
    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown))
    mapped = [normalizers.Precompiled(characters)] if characters else []
    spaces = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), _SPACE)]
    tokenizer.normalizer = normalizers.Sequence([*mapped, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    names = [name for name, _ in vocabulary]
    tokenizer.add_special_tokens([_PAD, _END, names[unknown]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, names.index(_END))]
    )
    return tokenizer


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message by number: whole numbers, and bytes of all that is no whole number.

    Raises:
        ValueError: the message ends early, or has fields that no such message has.
    """
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(message, place)
            yield key >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, place = _number(message, place)
        if length is None or place + length > len(message):
            raise ValueError("it is damaged")
        yield key >> 3, message[place : place + length]
        place += length


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A whole number in groups of 7 bits, and the place behind it."""
    number = shift = 0
    while place < len(message) and shift < 64:
        byte = message[place]
        number, place = number | (byte & 127) << shift, place + 1
        if byte < 128:
            return number, place
        shift += 7
    raise ValueError("it is damaged")
