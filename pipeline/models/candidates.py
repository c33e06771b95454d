"""Candidates that outlive a run: what a generator has drawn once it never draws again.

Evaluation compares many settings of one run, most of which ask the generators the same things. A
candidate is known by the generator's identity, by all that it was shown, by its seed, and by its number
among those from the same examples.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from generators.asked import Asked, submit, without_pictures
from generators.base import (
    Candidate,
    CaptionRequest,
    Dropped,
    Example,
    Generated,
    ImageRequest,
)
from generators.usage import Usage
from pipeline.dataset.images import encode
from pipeline.storage.digests import digest

Request = CaptionRequest | ImageRequest


class CandidateStore:
    """A store of candidates by content, one SQLite file.

    Parameters
    ----------
    path : Path
        Made when needed. One process may write at a time.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Generators are asked from one thread at a time, though not always the same one.
        self._store = sqlite3.connect(path, check_same_thread=False)
        self._store.execute(
            "CREATE TABLE IF NOT EXISTS drawn (key TEXT PRIMARY KEY, prompt TEXT, text TEXT,"
            " image BLOB, notes TEXT, shown TEXT, dropped TEXT, revision TEXT)"
        )
        if "revision" not in {one[1] for one in self._store.execute("PRAGMA table_info(drawn)")}:
            # What was drawn may have been paid for.
            self._store.execute("ALTER TABLE drawn ADD COLUMN revision TEXT")

    def __len__(self) -> int:
        return int(self._store.execute("SELECT count(*) FROM drawn").fetchone()[0])

    def around(
        self,
        generator: Any,
        identity: Mapping[str, Any],
        load: Callable[[Any], None] = lambda generator: None,
    ) -> Remembering:
        """The generator, asked only for candidates that are not held; `load` comes first."""
        return Remembering(generator, digest(json.dumps(identity, sort_keys=True)), self, load)

    def find(self, key: str, seed: int, examples: Sequence[Example]) -> Candidate | None:
        """The candidate of a key, or None.

        What it was shown is held by place among the examples of its request, for two pairs may have
        the same content.
        """
        found = self._store.execute(
            "SELECT prompt, text, image, notes, shown, dropped, revision FROM drawn WHERE key = ?",
            (key,),
        ).fetchone()
        if found is None:
            return None
        prompt, text, data, notes, shown, dropped, revision = found
        return Candidate(
            seed,
            prompt,
            text=text,
            image=None if data is None else _opened(data),
            notes=tuple(json.loads(notes)),
            shown=tuple(examples[place].id for place in json.loads(shown)),
            dropped=tuple(Dropped(examples[place].id, why) for place, why in json.loads(dropped)),
            revision=revision,
        )

    def add(self, candidates: Mapping[str, tuple[Candidate, Sequence[Example]]]) -> None:
        """Keep candidates, each with the examples of its request; on disk when it returns."""
        places = {
            key: {example.id: place for place, example in enumerate(examples)}
            for key, (_, examples) in candidates.items()
        }
        rows = [
            (
                key,
                made.prompt,
                made.text,
                None if made.image is None else encode(made.image),
                json.dumps(made.notes),
                json.dumps([places[key][one] for one in made.shown]),
                json.dumps([[places[key][one.id], one.reason] for one in made.dropped]),
                made.revision,
            )
            for key, (made, _) in candidates.items()
        ]
        with self._store:
            self._store.executemany("INSERT OR REPLACE INTO drawn VALUES (?,?,?,?,?,?,?,?)", rows)

    def close(self) -> None:
        self._store.close()


class Remembering:
    """A captioner or image generator that answers from a memory what it can.

    What it asks keeps to the contract: see `pipeline.models.answers`.
    """

    def __init__(
        self, generator: Any, identity: str, memory: CandidateStore, load: Callable[[Any], None]
    ) -> None:
        self._generator = generator
        self._identity = identity
        self._memory = memory
        self._load = load

    def load(self) -> None:
        """Nothing: the model is loaded when it is needed."""

    def close(self) -> None:
        self._generator.close()

    def memory(self) -> int:
        """Bytes of the generator's weights."""
        return int(self._generator.memory())

    @property
    def used(self) -> Usage:
        """What the generator's server has counted, if it has one."""
        return getattr(self._generator, "used", Usage())

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order; what fails is not remembered."""
        return self.submit(requests).gather()

    def submit(self, requests: Sequence[Request]) -> Asked:
        """The same, under way where the generator can be asked so."""
        keys = [self._keys(request) for request in requests]
        # By place: a row may be asked for more than once, with other examples.
        held: list[dict[int, Candidate]] = []
        asked: dict[int, Request] = {}
        for place, (request, own) in enumerate(zip(requests, keys, strict=True)):
            found = {
                seed: self._memory.find(key, seed, request.examples) for seed, key in own.items()
            }
            held.append({seed: one for seed, one in found.items() if one is not None})
            numbers = request.numbers or range(len(request.seeds))
            wanted = {
                seed: number
                for seed, number in zip(request.seeds, numbers, strict=True)
                if seed not in held[place]
            }
            if wanted:
                asked[place] = replace(request, seeds=tuple(wanted), numbers=tuple(wanted.values()))
        places = list(asked)
        bare = [without_pictures(request) for request in requests]

        def joined(answers: list[Generated]) -> list[Generated]:
            errors: dict[int, str] = {}
            new: dict[str, tuple[Candidate, Sequence[Example]]] = {}
            for place, answer in zip(places, answers, strict=True):
                if answer.error is not None:
                    errors[place] = answer.error
                for candidate in answer.candidates:
                    new[keys[place][candidate.seed]] = candidate, bare[place].examples
                    held[place][candidate.seed] = candidate
            self._memory.add(new)
            return [
                Generated(
                    one.row_id,
                    tuple(held[place][seed] for seed in one.seeds if seed in held[place]),
                    errors.get(place),
                )
                for place, one in enumerate(bare)
            ]

        if not asked:
            return Asked.answered([]).then(joined)
        self._load(self._generator)
        return submit(self._generator, list(asked.values())).then(joined)

    def _keys(self, request: Request) -> dict[int, str]:
        """The key of each seed's candidate."""
        shown = [self._identity, type(request).__name__]
        shown.append(request.text if isinstance(request, ImageRequest) else _picture(request.image))
        for example in request.examples:
            shown += [example.text, "" if example.image is None else _picture(example.image)]
        content = digest(*shown)
        numbers = request.numbers or range(len(request.seeds))
        return {
            seed: digest(content, str(seed), str(number))
            for seed, number in zip(request.seeds, numbers, strict=True)
        }


def _opened(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data))
    return image.convert("RGBA" if image.mode == "RGBA" else "RGB")


def _picture(image: Image.Image) -> str:
    return digest(image.mode, repr(image.size), image.tobytes())
