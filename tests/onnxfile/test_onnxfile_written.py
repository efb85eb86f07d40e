"""What every encoding writes for one fixed weight, by version of the stage "export".

Exports are shared by key, and the key knows an encoding only by the stage's version. So other bytes under the same version would
be taken for the old ones.
"""

import hashlib

import numpy as np
import pytest

from tdcompress.lineage.versions import VERSIONS
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import SectionKey, Weight
from tdcompress.onnxfile.encodings.forms import FORMS

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)
PLACES = np.arange(24 * 40)
# every seventh entry or so, a gap of more than 255, and few enough values for every form to hold them as they are
KEPT = ((PLACES * PLACES) % 7 == 1) & ~((PLACES > 300) & (PLACES < 700))
ARRAY = np.where(KEPT, ((PLACES % 5) - 2.5) / 4, 0).astype(np.float32).reshape(24, 40)

WRITTEN: dict[int, dict[str, str]] = {
    14: {
        "dense float32": "6a78bdf2ca21",
        "dense float16": "991807bb8713",
        "sparse_initializer float32": "83683abdbe3c",
        "sparse_initializer float16": "875b585bad90",
        "gap8 float32": "0ed1f7df88b8",
        "gap8 float16": "c1c3965f4146",
        "gap8 codebook16": "35ce37f2a304",
        "gap8 int8-kept": "249fbbbc6c5d",
        "gap8 int4-kept": "b321a705cc96",
        "gap6 float32": "0c059592134a",
        "gap6 float16": "5a87cdbd7cfd",
        "gap6 codebook16": "eca96cd64d2c",
        "gap6 int8-kept": "663c3bbcd7cf",
        "gap6 int4-kept": "7a3a07288bac",
        "gap4 float32": "914195bde01a",
        "gap4 float16": "d02ba332a5f1",
        "gap4 codebook16": "44f14f0d478b",
        "gap4 int8-kept": "e7aaf444d813",
        "gap4 int4-kept": "4c1cc7a96bbf",
        "rice6 float32": "db2a4c6e073a",
        "rice6 float16": "2663aabd254b",
        "rice6 codebook16": "7f4b96ff890b",
        "rice6 int8-kept": "e835d27cb692",
        "rice6 int4-kept": "2a20390830f8",
        "rice4 float32": "55621f027787",
        "rice4 float16": "705ac0eb4bcd",
        "rice4 codebook16": "de7fb9d34aaa",
        "rice4 int8-kept": "170ec0fcdbc5",
        "rice4 int4-kept": "8b3fcfed8662",
        "rice3 float32": "1e44006b685a",
        "rice3 float16": "ee18bfca780b",
        "rice3 codebook16": "29199ac18f16",
        "rice3 int8-kept": "bcb701124e62",
        "rice3 int4-kept": "46b348541106",
        "rice1 float32": "bb32c5214168",
        "rice1 float16": "899e90362cbe",
        "rice1 codebook16": "f517e631e08e",
        "rice1 int8-kept": "5d19cffc6e76",
        "rice1 int4-kept": "07805460e56b",
        "step4 float32": "a3c1421a5af4",
        "step4 float16": "f94d87ed4dc9",
        "step4 int8-kept": "83a6dd503e5e",
        "step4 int4-kept": "de2de95f3ac9",
        "steps float32": "4665560a2e94",
        "steps float16": "c009b991573b",
        "bitmask float32": "77b30111b1ef",
        "bitmask float16": "cbf65f970d34",
        "bitmask codebook16": "b82751b7051e",
        "bitmask int8-kept": "6a74e06bf6bd",
        "bitmask int4-kept": "66932b14c576",
    },
}


def written(encoding: str, form: str, stored: np.dtype) -> str:
    """The first digits of the sha256 of all messages of a section."""
    key = SectionKey(graph=0, encoding=encoding, dtype=FLOAT32, stored=stored, form=form)
    section = ENCODINGS[encoding].write([Weight(name="w", array=ARRAY), Weight(name="v", array=ARRAY[:, :9].copy())], key)
    messages = [*section.initializers, *section.sparse_initializers, *section.nodes]
    return hashlib.sha256(b"".join(message.SerializeToString(deterministic=True) for message in messages)).hexdigest()[:12]


def cases() -> dict[str, tuple[str, str, np.dtype]]:
    """Every encoding with float32 and float16 values, and with every form that it holds."""
    found = {}
    for encoding, own in ENCODINGS.items():
        found |= {f"{encoding} {stored.name}": (encoding, "", stored) for stored in (FLOAT32, FLOAT16)}
        found |= {f"{encoding} {form}": (encoding, form, FLOAT32) for form in FORMS if own.holds(form)}
    return found


@pytest.mark.parametrize("name", cases())
def test_what_an_encoding_writes_changes_with_the_version_of_exports_alone(name: str) -> None:
    known = WRITTEN.get(VERSIONS["export"], {})
    assert written(*cases()[name]) == known.get(name), (
        f"{name} writes other bytes than it did, or is new: raise the version of export in lineage/versions.py, "
        "and write what it makes now under that version here, in place of the older one"
    )


def test_nothing_is_listed_that_is_not_written() -> None:
    assert {version: set(known) for version, known in WRITTEN.items()} == {VERSIONS["export"]: set(cases())}
