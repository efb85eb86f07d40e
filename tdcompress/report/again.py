"""A finished run's report, read back: compared with a published table, or joined by what other machines measured."""

import json
from collections.abc import Sequence
from pathlib import Path

from tdcompress.artifacts import MANIFEST
from tdcompress.codec import decode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import sha256_file, write_text
from tdcompress.records import Report
from tdcompress.report import dependence, markdown
from tdcompress.report.comparison import compare, comparison_blocks
from tdcompress.report.document import Document
from tdcompress.report.join import join_bench
from tdcompress.report.papers import published_table
from tdcompress.report.write import write_report


def load_report(folder: Path) -> Report:
    """The report of a run's folder.

    Raises:
        UserError: no such run, or one that is not finished.
        ArtifactError: a report.json that cannot be read.
    """
    path = folder / "report.json"
    if not path.is_file():
        state = "has no report.json yet: run its recipe again to finish it" if folder.is_dir() else "no such run"
        raise UserError(f"{folder}: {state}; `tdcompress status` lists the runs")
    try:
        return decode(Report, json.loads(path.read_text()), "report")
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged, or of another version ({error}); run the recipe again to rebuild it") from None


def join_files(folder: Path, files: Sequence[Path]) -> Report:
    """Add the results of ``bench --json`` from other machines to a run's report, and write the report again.

    Raises:
        UserError: a file that is not such a result, or that timed other files than this run's.
    """
    report = load_report(folder)
    digests = _manifest(folder)["files"]
    for file in files:
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not readable as JSON ({error}); write it with `tdcompress bench --json`") from None
        try:
            report = join_bench(report, found, digests)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    written = write_report(report, folder)
    manifest = _manifest(folder)
    manifest["files"] |= {path.name: sha256_file(path) for path in written}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))
    return report


def compare_with(folder: Path, report: Report, table_id: str) -> Document:
    """Lay a run beside a published table; the comparison is also written as ``compare-<table>.md`` in the run's folder.

    Raises:
        UserError: no such table, or one of another network or measure.
    """
    table = published_table(table_id)
    if table_id == dependence.TABLE:
        blocks = dependence.comparison(dependence.read_dependence(folder), report)
    else:
        blocks = comparison_blocks(compare(table, report))
    document = Document(title=f"{report.run} beside {table_id}", subtitle=f"{report.model} on {report.data}", blocks=blocks)
    write_text(folder / f"compare-{table_id}.md", markdown.render_document(document))
    return document


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    try:
        manifest: dict[str, dict[str, str]] = json.loads((folder / MANIFEST).read_text())
        if not isinstance(manifest["files"], dict):
            raise TypeError("files is not a table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / MANIFEST}: not a readable manifest ({error}); run the recipe again") from None
    return manifest
