"""A finished run, taken up again: compared with a published table, or joined by what other machines measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tdcompress.bench.report import BenchReport
from tdcompress.errors import UserError, one_line
from tdcompress.files import second_name, sha256_file, write_text
from tdcompress.records.report import Report
from tdcompress.report import dependence, markdown
from tdcompress.report.comparison import compare_with_published, comparison_blocks
from tdcompress.report.document import Document
from tdcompress.report.join import join_bench, joined_line
from tdcompress.report.papers import published_table
from tdcompress.report.write import write_report
from tdcompress.runs.folder import renewed
from tdcompress.runs.manifest import read_manifest, save_manifest, vouch, whole_run


def join_files(folder: Path, files: Sequence[Path], say: Callable[[str], None] = lambda line: None) -> Report:
    """Add the results of ``bench --json`` from other machines to a run's report, and write the report again.

    Args:
        folder: the run's.
        files: the results.
        say: told in one line what each file added, once all are accepted.

    Raises:
        UserError: a file that is not such a result, or that timed other files than this run's.
        ArtifactError: a file of the run that is missing or damaged.
    """
    report, manifest = whole_run(folder)  # the manifest is written anew below, and must not vouch for damage
    lines = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({one_line(error)})") from None
        bench = BenchReport.from_json(text, str(file))
        try:
            report, before = join_bench(report, bench, manifest.files), report
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        lines.append(f"{file}: {joined_line(before, bench)}")
    with renewed(folder, manifest.recipe_key, replace=False) as new:  # killed between two of its files, it would be damaged
        for name in manifest.files:
            second_name(folder / name, new / name)
        digests = manifest.files | {path.name: sha256_file(path) for path in write_report(report, new)}
        save_manifest(new, replace(manifest, files=digests))
    for line in lines:
        say(line)
    return report


def compare_with(folder: Path, report: Report, table_id: str) -> Document:
    """Lay a run beside a published table; the comparison is also written as ``compare-<table>.md`` in the run's folder.

    Args:
        folder: the run's.
        report: its report.
        table_id: of `published_table`: "workshop-1a".

    Raises:
        UserError: no such table, or one of another network or measure; or the run has no analysis for a table of one.
        ArtifactError: the records of its analysis are damaged, or changed since they were written.
    """
    table = published_table(table_id)
    if table_id == dependence.TABLE:
        records = dependence.read_dependence(folder)
        vouch(folder, read_manifest(folder), dependence.RECORDS)
        blocks = dependence.comparison(records, report)
    else:
        blocks = comparison_blocks(compare_with_published(table, report))
    document = Document(title=f"{report.run} beside {table_id}", subtitle=f"{report.model} on {report.data}", blocks=blocks)
    write_text(folder / f"compare-{table_id}.md", markdown.render_document(document))
    return document
