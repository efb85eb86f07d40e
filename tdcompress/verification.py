"""Check what is to be deployed: one ONNX file, or a run's whole folder. Needs no torch."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tdcompress.artifacts import FORMAT, MANIFEST, check_files
from tdcompress.errors import ArtifactError
from tdcompress.files import StrPath
from tdcompress.onnxfile.reports import VerifyReport
from tdcompress.onnxfile.verify import verify_onnx

REPORT, SAMPLES = "report.json", "samples.npz"


def verify_path(
    path: StrPath, say: Callable[[str], None] = lambda line: None, *, external_data: bool = False
) -> dict[str, VerifyReport]:
    """Verify a file, or a run folder: every file against the manifest, every ONNX file, and its outputs on real samples.

    Args:
        path: an .onnx file (with samples.npz beside it, the outputs are compared too), or a folder of ``tdcompress run``.
        say: gets a line for each step.
        external_data: accept weights in files beside an .onnx file; a run's files have none.

    Returns:
        A report for each ONNX file; it is there only if the file passed.

    Raises:
        ArtifactError: the folder has no readable manifest, or a file that is missing or damaged.
        ModelError: a file that is not a model.
        VerificationError: a model that does not give the recorded outputs.
    """
    path = Path(path)
    if not path.is_dir():
        return {path.name: verify_with_samples(path, external_data=external_data)}
    files = _manifest_files(path)
    say(f"{path}: hashing files")
    check_files(path, files)
    _check_manifest(path)
    models = sorted(name for name in files if name.endswith(".onnx"))
    if not models:
        raise ArtifactError(f"{path / MANIFEST}: names no .onnx file; is {path} a run's folder?")
    reports = {}
    for name in models:
        say(f"{path / name}: running samples")
        reports[name] = verify_with_samples(path / name)
    return reports


def verify_with_samples(path: Path, *, external_data: bool = False) -> VerifyReport:
    """Verify an ONNX file, on the samples beside it where they are recorded for it."""
    samples = path.parent / SAMPLES
    output = f"output/{path.name}"
    if _holds(samples, output):
        return verify_onnx(path, samples, output=output, external_data=external_data)
    return verify_onnx(path, external_data=external_data)


def _holds(samples: Path, output: str) -> bool:
    if not samples.is_file():
        return False
    try:
        with np.load(samples, allow_pickle=False) as archive:
            return output in archive.files
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{samples}: not a readable file of samples ({error}); fetch the run's folder again") from None


def _check_manifest(folder: Path) -> None:
    """What the manifest says besides its files is in the report too, whose digest it holds."""
    manifest = json.loads((folder / MANIFEST).read_text())
    try:
        report = json.loads((folder / REPORT).read_text())
        same = all(manifest[key] == report[key] for key in ("run", "recipe_key"))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{folder / MANIFEST}: is damaged (it does not agree with {REPORT}); run the recipe again")


def _manifest_files(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text())["files"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise ArtifactError(f"{path}: not a readable manifest ({reason}); is {folder} a run's folder?") from None
