"""Check what is to be deployed: one ONNX file, or a run's whole folder. Needs no torch."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tdcompress.arguments import checked
from tdcompress.artifacts import MANIFEST, REBUILD, STAGE, check_files
from tdcompress.codec import decode_file
from tdcompress.errors import ArtifactError, ModelError, UserError
from tdcompress.files import StrPath
from tdcompress.npz import npz_names
from tdcompress.onnxfile.reports import VerifyReport
from tdcompress.onnxfile.verify import verify_onnx
from tdcompress.runs.manifest import SAMPLES, read_manifest, vouched_report
from tdcompress.runs.parts import TRANSLATING, install
from tdcompress.text.names import VOCABULARY
from tdcompress.text.recorded import VocabularyReport, verify_vocabulary

Passed = VerifyReport | VocabularyReport
EXTRAS: Mapping[str, tuple[Callable[[Path, Path | None], Passed], tuple[str, ...]]] = {
    VOCABULARY: (verify_vocabulary, TRANSLATING),
}
"""Files of a run besides ONNX files that can be tried: by what, given recorded samples if there are any; the packages needed."""


@checked
def verify_path(
    path: StrPath, say: Callable[[str], None] = lambda line: None, *, external_data: bool = False
) -> dict[str, Passed]:
    """Verify a file, or a run folder: every file against the manifest, every ONNX file, and its outputs on real samples.

    A translator's vocabulary is tried too, where sentencepiece is installed: it has to cut sentences as recorded.

    Args:
        path: an .onnx file (with samples.npz beside it, the outputs are compared too), or a folder of ``tdcompress run``.
        say: gets a line for each step.
        external_data: accept weights in files beside an .onnx file; a run's files have none.

    Returns:
        A report for each ONNX file, and for a vocabulary; it is there only if the file passed.

    Raises:
        UserError: the folder is a stage's, not a run's.
        ArtifactError: the folder has no readable manifest, or a file that is missing or damaged.
        ModelError: a file that is not a model.
        VerificationError: a model that does not give the recorded outputs, or a vocabulary that cuts sentences differently.
    """
    path = Path(path)
    if not path.is_dir():
        return {path.name: verify_with_samples(path, external_data=external_data)}
    _refuse_a_stage(path)
    manifest = read_manifest(path)  # first: a folder without one is no run's
    say(f"{path}: hashing files")
    try:
        check_files(path, manifest.files)
    except ArtifactError as error:  # whoever deploys has a copy, and perhaps nothing to run a recipe with
        raise ArtifactError(str(error).replace(REBUILD, f"copy the folder again, or {REBUILD}")) from None
    try:
        vouched_report(path)
    except UserError as error:
        raise ArtifactError(str(error)) from None
    models = sorted(name for name in manifest.files if name.endswith(".onnx"))
    for name in sorted(model.name for model in path.glob("[!.]*.onnx") if model.name not in models):
        say(f"{path / name}: is not of this run (its manifest does not name it), and is not checked")
    reports: dict[str, Passed] = {}
    for name in models:
        say(f"{path / name}: running samples")
        reports[name] = verify_with_samples(path / name)
    for name in sorted(EXTRAS.keys() & manifest.files.keys()):
        try_it, needs = EXTRAS[name]
        if missing := [part for part in needs if not find_spec(part)]:
            say(f"{path / name}: whole, but not tried, which needs {', '.join(missing)}: {install('translate')}")
            continue
        say(f"{path / name}: trying it")
        held = _recorded(path / SAMPLES, f"{name}/")
        reports[name] = try_it(path / name, path / SAMPLES if held else None)
    return reports


def _refuse_a_stage(folder: Path) -> None:
    """Say of the folder of a stage that it is one.

    Raises:
        UserError: it is.
    """
    try:
        said = decode_file(dict[str, Any], folder / MANIFEST)
    except ArtifactError:
        return
    stage = said.get("stage")  # a run's has none
    if not isinstance(stage, str) or not STAGE.fullmatch(stage):
        return
    models = sorted(model.name for model in folder.glob("[!.]*.onnx"))
    name = f"one of its files ({', '.join(models)}), or a run's folder" if models else "a run's folder"
    raise UserError(
        f"{folder}: is the folder of a stage ({stage}), not of a run; name {name}: `tdcompress status` lists the runs"
    )


def verify_with_samples(path: Path, *, external_data: bool = False) -> VerifyReport:
    """Verify an ONNX file, on the samples beside it where they are recorded for it."""
    samples = path.parent / SAMPLES
    output, own = f"output/{path.name}", f"{path.name}/"
    if _recorded(samples, own):
        return verify_onnx(path, samples, own=own, external_data=external_data)
    if _recorded(samples, output):
        return verify_onnx(path, samples, output=output, external_data=external_data)
    return verify_onnx(path, external_data=external_data)


def _recorded(samples: Path, start: str) -> bool:
    """Whether a file of samples is there and has an array whose name begins so."""
    if not samples.is_file():
        return False
    try:
        return any(name.startswith(start) for name in npz_names(samples, "file of samples"))
    except ModelError as error:
        raise ArtifactError(f"{error}; fetch the run's folder again") from None
