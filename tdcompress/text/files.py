"""The files of an exported translator, opened: whether they are whole, and belong together."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx

from tdcompress.errors import DataError, ModelError, VerificationError
from tdcompress.onnxfile.load import in_file, load_model
from tdcompress.onnxfile.metadata import get_metadata
from tdcompress.onnxfile.runtime import OpenedFile, open_session
from tdcompress.text.names import NETWORK_KEY, TASK, VOCABULARY_SHA256, beside_encoder
from tdcompress.text.translator import OnnxDecoder, TextTranslator
from tdcompress.text.vocabulary import Vocabulary

Opener = Callable[[Path, onnx.ModelProto, int], OpenedFile]
"""Loads a file, which is given as it was read too, for a number of threads."""


def by_onnxruntime(path: Path, model: onnx.ModelProto, threads: int) -> OpenedFile:
    """A session of onnxruntime.

    Args:
        path: the file, for messages.
        model: as it was read.
        threads: 0 = all that there are.

    Raises:
        ModelError: it does not load the model.
    """
    try:
        session: OpenedFile = open_session(model, threads=threads)
    except VerificationError as error:  # of files that somebody gave it is a wrong one, and no fault of ours
        raise ModelError(f"{path}: {error}") from error
    return session


def open_translator(encoder: Path, threads: int = 1, opener: Opener = by_onnxruntime) -> TextTranslator:
    """Load a translator, and check that its files are of one network.

    Args:
        encoder: its first file; decoder step and vocabulary lie beside it (`beside_encoder`).
        threads: of each session; 0 = all that there are.
        opener: what loads an encoder and a decoder step.

    Raises:
        ModelError: a file that is missing, damaged, no translator's, or of another network than the encoder.
        UnsupportedError: an operator that is not known.
        DataError: a vocabulary that is damaged, or another one than the network was trained with.
    """
    files = step, vocabulary = beside_encoder(encoder)
    reading = load_model(encoder)
    with in_file(encoder):
        facts = get_metadata(reading)
        if facts.get("task") != TASK:
            raise ModelError(f'is no translator: nothing in it says that its task is "{TASK}"')
        longest = facts.get("longest", "")
        if not longest.isdecimal() or len(longest) > 9 or not facts.get(NETWORK_KEY):
            raise ModelError("does not say of which network it is, or how long a sentence may be; export it again")
        if missing := [path.name for path in files if not path.is_file()]:
            raise ModelError(f"{' and '.join(missing)} not beside it; a translator is both and this file: copy all three")
    saying = load_model(step)
    with in_file(step):
        if get_metadata(saying).get(NETWORK_KEY) != facts[NETWORK_KEY]:
            raise ModelError(f"is no decoder step of {encoder.name}; copy both from one run")
    pieces = vocabulary.read_bytes()
    if hashlib.sha256(pieces).hexdigest() != facts.get(VOCABULARY_SHA256):
        raise DataError(f"{vocabulary}: is damaged, or not the vocabulary of {encoder.name}; copy both from one run")
    encoding, stepping = opener(encoder, reading, threads), opener(step, saying, threads)
    with in_file(step):
        return TextTranslator(
            decoder=OnnxDecoder(encoding, stepping), vocabulary=Vocabulary(pieces, str(vocabulary)), longest=int(longest)
        )
