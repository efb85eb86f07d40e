"""Translating with what a run ships: onnxruntime, numpy and sentencepiece, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tdcompress.arguments import checked, require_range
from tdcompress.artifacts import MANIFEST, check_files
from tdcompress.codec import decode_file
from tdcompress.errors import ArgumentError, ArtifactError, ModelError, UserError, did_you_mean
from tdcompress.files import StrPath
from tdcompress.limits import usable_cores
from tdcompress.runs.manifest import SELECTED_FILE
from tdcompress.runs.parts import TRANSLATING, require_parts
from tdcompress.text.names import STEP, beside_encoder, encoder_beside

BACKENDS = ("onnxruntime", "engine")
MOST_BEAM = 64
MOST_ALPHA = 10.0  # of the length's penalty; 0 to 1 is usual


class Translator:
    """An exported translator: loaded once, it translates any number of sentences.

    Args:
        run: a run's folder, an export's, or any folder with model.onnx, model.decoder_step.onnx and vocabulary.model; or the
            first of three such files.
        row: of a run: whose files; None = those of the selected row, model.onnx, or of the only row that was copied.
        threads: of each session; 0 = all cores.
        backend: what runs the network: "onnxruntime", or "engine", which skips the zeros of a pruned one.

    Raises:
        ArgumentError: an argument of a wrong type, more threads than cores, or no such backend.
        UserError: sentencepiece is not installed; or no such row.
        ModelError: no such file or folder; one that is no translator, or lacks a file; a file that is damaged.
        DataError: a vocabulary that is damaged or another one than the network's.
        UnsupportedError: the engine cannot be compiled here.
    """

    @checked
    def __init__(self, run: StrPath, *, row: str | None = None, threads: int = 1, backend: str = BACKENDS[0]) -> None:
        require_range("Translator: threads", threads, 0, usable_cores())
        if backend not in BACKENDS:
            raise ArgumentError(f"Translator: backend has to be one of {', '.join(BACKENDS)}, and is {backend!r}")
        require_parts(*TRANSLATING, extra="translate")
        from tdcompress.text.files import by_onnxruntime, open_translator  # what it needs may not be installed

        encoder = find_encoder(Path(run), row)
        _check_damage(encoder, *beside_encoder(encoder))
        self._text = open_translator(encoder, int(threads), _by_engine if backend == "engine" else by_onnxruntime)

    @checked
    def __call__(self, sentences: Sequence[str], *, beam: int = 4, alpha: float = 0.6) -> list[str]:
        """Translate sentences, in their order; they are searched in batches of like length.

        White space around and between words counts once. An empty sentence stays empty. Characters that the vocabulary lacks
        become unknown pieces, of neighbours one; where the network says one, the translation has "⁇".

        Args:
            sentences: of the source language.
            beam: how many beginnings are followed at once; 1 = greedy search.
            alpha: how much long translations are preferred (Wu et al. 2016, equation 14); 0 = not at all. Of no effect on
                greedy search.

        Raises:
            ArgumentError: an argument of a wrong type or out of range.
            DataError: a sentence of more pieces than the network was trained for, or one that is no text.
            VerificationError: onnxruntime fails, or computes numbers that are not finite.
        """
        require_range("Translator: beam", beam, 1, MOST_BEAM)
        if not 0 <= alpha <= MOST_ALPHA:
            raise ArgumentError(f"Translator: alpha has to be 0 to {MOST_ALPHA:g}, and is {alpha}")
        return self._text(sentences, beam=int(beam), alpha=float(alpha))

    @checked
    def refusal(self, sentence: str) -> str:
        """Why a sentence cannot be translated; nothing where it can."""
        return self._text.refusal(sentence)


def _by_engine(path: Path, model: Any, threads: int) -> Any:
    """The engine's session of a file."""
    from tdcompress.engine import Session

    return Session(path, threads or usable_cores())


def find_encoder(place: Path, row: str | None = None) -> Path:
    """The first file of a translator.

    Args:
        place: the file itself; or a folder.
        row: which one of a run's folder; None = the selected one, or the only one that was copied.

    Raises:
        ModelError: no such file or folder, one that holds no translator, one that lacks model.onnx, or a decoder step.
        UserError: no such row, or none was selected.
    """
    if place.is_file():
        if row is not None:
            raise UserError(f"{place}: a file, which is of one row; name the run's folder to choose row {row!r}")
        if place.name.endswith(STEP):
            raise ModelError(f"{place}: is a decoder step; give the translator's first file, {encoder_beside(place).name}")
        return place
    if not place.is_dir():
        raise ModelError(f"{place}: no such file or run")
    selected, ending = place / SELECTED_FILE, f".{STEP}"
    if row is None and selected.is_file():
        return selected
    rows = sorted({path.name.removesuffix(ending) for path in place.glob(f"*{ending}")} - {selected.stem})
    if row is None:
        return _only_row(place, rows)
    if not rows:
        raise ModelError(f"{place}: holds no translator with a row's name: there is no file ROW{ending} in it")
    if row not in rows:
        raise UserError(f"{place}: has no row {row!r}, only {', '.join(rows)}{did_you_mean(row, rows)}")
    return place / f"{row}.onnx"


def _only_row(folder: Path, rows: list[str]) -> Path:
    """The first file of the only row that was copied to a folder without model.onnx.

    Raises:
        ModelError: model.onnx was lost, or there is no translator.
        UserError: several rows, or a run that selected none.
    """
    selected, run = folder / SELECTED_FILE, (folder / MANIFEST).is_file()
    step, _ = beside_encoder(selected)
    if selected.exists():
        raise ModelError(f"{selected}: is no file; put the file {SELECTED_FILE} of the run in its place")
    if step.exists() or SELECTED_FILE in _named(folder):
        raise ModelError(f"{selected}: is missing; copy it from the run" + f", or choose a row: {', '.join(rows)}" * bool(rows))
    if not rows:
        raise ModelError(f"{folder}: holds no translator: there is neither {SELECTED_FILE} nor a file *.{STEP} in it")
    if run or len(rows) > 1:
        why = f"no row was accurate enough to become {SELECTED_FILE}" if run else f"there is no {SELECTED_FILE} in it"
        raise UserError(f"{folder}: {why}; choose a row: {', '.join(rows)}")
    return folder / f"{rows[0]}.onnx"


def _named(folder: Path) -> dict[str, str]:
    """The files that a folder's manifest names, with their sha256; none where there is no manifest.

    Raises:
        ModelError: it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        digests = decode_file(dict[str, Any], folder / MANIFEST).get("files")
    except ArtifactError as error:  # a fault where we made the files; here they are what somebody gave
        raise ModelError(str(error)) from error
    return digests if isinstance(digests, dict) else {}


def _check_damage(*files: Path) -> None:
    """Compare files with the manifest beside them, where there is one that names them.

    Raises:
        ModelError: one is damaged, or the manifest is.
    """
    folder = files[0].parent
    named = _named(folder)
    try:
        check_files(folder, {path.name: named[path.name] for path in files if path.name in named and path.is_file()})
    except ArtifactError as error:  # as above
        raise ModelError(str(error)) from error
