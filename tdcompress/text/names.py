"""How an exported translator's files are called, and what they say of themselves; known without onnxruntime."""

from pathlib import Path

TASK = "translation"
ENCODER, STEP, VOCABULARY = "model.onnx", "decoder_step.onnx", "vocabulary.model"
NETWORK_KEY = "network_key"
"""Metadata of every file of a network: which one it is."""
VOCABULARY_SHA256 = "vocabulary_sha256"
"""Metadata of the encoder: which vocabulary the network was trained with."""


def beside_encoder(encoder: Path) -> tuple[Path, Path]:
    """The decoder step and the vocabulary that belong to an encoder.

    Args:
        encoder: "x.onnx" of a run's folder, beside which "x.decoder_step.onnx" lies; or the encoder of an export, which lies
            alone with "decoder_step.onnx".
    """
    own, plain = encoder.with_name(f"{encoder.stem}.{STEP}"), encoder.with_name(STEP)
    return plain if plain.exists() and not own.exists() else own, encoder.with_name(VOCABULARY)


def encoder_beside(step: Path) -> Path:
    """The encoder that a decoder step belongs to, by its name; see `beside_encoder`."""
    row = step.name.removesuffix(STEP).removesuffix(".")
    return step.with_name(f"{row}.onnx" if row else ENCODER)
