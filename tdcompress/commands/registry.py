"""All verbs, in the order of ``tdcompress --help``."""

from collections.abc import Callable

from tdcompress.commands import artifacts, bench, compile, data, inspect, pack, recipes, report, run, status, translate, verify
from tdcompress.commands.shared import Verbs

COMMANDS: tuple[Callable[[Verbs], None], ...] = (
    run.add_parser,
    status.add_parser,
    report.add_parser,
    recipes.add_parser,
    artifacts.add_parser,
    data.add_parser,
    inspect.add_parser,
    pack.add_parser,
    compile.add_parser,
    verify.add_parser,
    bench.add_parser,
    translate.add_parser,
)
