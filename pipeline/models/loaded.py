"""The models that a process has at hand: the encoder, and one generator at a time.

Each is loaded on first use; what is closed is loaded again when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generators.base import needs_of
from generators.pictures import lent
from generators.usage import Usage
from kb.embeddings import InvalidEmbedding, Modality, normalise
from pipeline.models.answers import Answers
from pipeline.models.candidates import CandidateStore
from pipeline.models.components import Component
from pipeline.models.loading import Loading, weight_bytes
from pipeline.models.resolution import ResolvedModel
from pipeline.storage.errors import ConfigError

# Pictures that are ready ahead of an encoder that takes them as they are.
AHEAD = 4


class LoadedModels:
    """The components of a run, with the checkpoints that they name.

    Parameters
    ----------
    encoder : Component
    generators : mapping
        What makes a missing half, by that half; at most one is loaded.
    base : Path
        Where relative paths start.
    offline : bool
        Download nothing.
    candidates : Path or None
        Where every candidate is kept, so that a generator is not asked twice; None keeps none.

    Attributes
    ----------
    store : CandidateStore or None
        The candidates that are kept; one may be set from outside, for several runs to share.
    loading : Loading
        What is being loaded.
    """

    def __init__(
        self,
        encoder: Component,
        generators: Mapping[Modality, Component],
        base: Path,
        offline: bool = False,
        candidates: Path | None = None,
    ) -> None:
        self.encoder_component = encoder
        self.generator_components = dict(generators)
        self.store: CandidateStore | None = None
        self.loading = Loading()
        self._base = base
        self._offline = offline
        self._candidates = candidates
        self._resolved: dict[str, dict[str, ResolvedModel]] = {}
        self._encoder: Any = None
        self._generator: tuple[Modality, Any] | None = None
        self._told = Usage()

    def resolved(self, component: Component) -> Mapping[str, ResolvedModel]:
        """The local checkpoints of a component by role, looked for once."""
        if component.section not in self._resolved:
            self._resolved[component.section] = component.resolve(self._base, self._offline)
        return self._resolved[component.section]

    def identity(self, component: Component) -> dict[str, Any]:
        """What a component's output depends on."""
        return component.identity(self.resolved(component))

    @property
    def encoder(self) -> Any:
        """The encoder, loaded."""
        if self._encoder is None:
            made = self.encoder_component.create(self.resolved(self.encoder_component))
            self._load(self.encoder_component, made)
            self._encoder = made
        return self._encoder

    def generator(self, missing: Modality) -> Any:
        """The captioner or the image generator, loaded; the other one is freed.

        With a store it is loaded once there is something that the store does not hold.
        """
        if self._generator is None or self._generator[0] != missing:
            self.close_generator()
            component = self.generator_components[missing]
            created = component.create(self.resolved(component))
            made: Any = Answers(created, component.section, needs_of(component.settings))
            if self.store is None and self._candidates is not None:
                self.store = CandidateStore(self._candidates)
            if self.store is None:
                self._load(component, made)
            else:
                load = partial(self._load, component)
                made = self.store.around(made, self.identity(component), load)
            self._generator, self._told = (missing, made), Usage()
        return self._generator[1]

    def newly_used(self) -> tuple[Modality, Usage] | None:
        """What the generator's server has counted since this was last asked, and for which half."""
        if self._generator is None:
            return None
        half, generator = self._generator
        used = getattr(generator, "used", Usage())
        new, self._told = used - self._told, used
        return half, new

    def try_generator(self, missing: Modality) -> None:
        """Load a generator and free it again, to know that it can be loaded."""
        component = self.generator_components[missing]
        made = component.create(self.resolved(component))
        try:
            self._load(component, made)
        finally:
            made.close()

    def _load(self, component: Component, made: Any) -> None:
        models = self.resolved(component).values()
        names = ", ".join(model.name for model in models) or component.kind
        size = sum(weight_bytes(model.path) for model in models)
        told = f", {size / 1e9:.1f} GB" if size >= 5e7 else ""
        with self.loading.of(f"{component.section} {names}{told}"):
            component.load(made)

    def close_generator(self) -> None:
        """Free the generator that is loaded."""
        if self._generator is not None:
            self._generator[1].close()
            self._generator = None

    def close(self) -> None:
        """Free all that is loaded."""
        self.close_generator()
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    @property
    def jpeg_side(self) -> int | None:
        """The shorter side that JPEGs may be decoded at for the encoder; None: their own."""
        side: int | None = getattr(self.encoder, "jpeg_side", None)
        return side

    @property
    def pictures_ahead(self) -> int:
        """Pictures to have ready for the encoder: few where it takes them as large as they are."""
        return int(getattr(self.encoder, "pictures_ahead", AHEAD))

    def prepare(self, picture: Image.Image) -> Any:
        """A picture for `embed`, as far as the encoder can be spared work; in any thread.

        What can't be prepared is left as it is, for `embed` to say why.
        """
        made = getattr(self.encoder, "prepare", None)
        if made is None:
            return picture
        try:
            return made(lent(picture))
        except Exception:  # noqa: BLE001  the encoder's own error comes of the picture in `embed`
            return picture

    def embed(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """Unit embeddings [n, d] of images (PIL, or `prepare`d) or of texts, each a list of captions.

        A row with several captions gets the mean of theirs. Images may come from an iterator: a
        few batches of them are held.

        Raises
        ------
        ConfigError
            The encoder gives an embedding that is not finite or all zero, or another number or
            width of them than it should.
        """
        try:
            if modality == "image":
                return self._encoded(items, "image")
            rows = list(items)
            captions = [caption for row in rows for caption in row]
            embeddings = self._encoded(captions, "text")
            if len(captions) == len(rows):
                return embeddings
            starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
            return normalise(np.add.reduceat(embeddings, starts, axis=0))
        except InvalidEmbedding as error:
            raise ConfigError(
                f"encoder: must give {modality} embeddings that are finite and not zero; got {error}"
            ) from None

    def _encoded(self, items: Iterable[Any], modality: Modality) -> np.ndarray:
        """What the encoder makes of items, one unit row each.

        Raises
        ------
        ConfigError
            It is anything else.
        """
        count = 0

        def counted() -> Iterator[Any]:
            nonlocal count
            for item in items:
                count += 1
                yield _lent(item)

        if isinstance(items, list):
            count = len(items)
            given = self.encoder.encode([_lent(item) for item in items], modality)
        else:
            given = self.encoder.encode(counted(), modality)
        try:
            rows = np.asarray(given)
            if rows.dtype.kind == "c":
                raise TypeError("complex numbers")
            rows = rows.astype(np.float32, copy=False)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(
                f"encoder: must give {modality} embeddings as an array of numbers;"
                f" got {type(given).__name__}"
            ) from None
        wanted = (count, self.encoder.dimension(modality))
        if not count and not rows.size:
            return np.empty(wanted, np.float32)
        if rows.shape != wanted:
            raise ConfigError(
                f"encoder: must give {modality} embeddings of shape {wanted}; got {rows.shape}"
            )
        return normalise(rows)


def _lent(item: Any) -> Any:
    """An item that an encoder may change in place: a generator and the output have its picture too."""
    return lent(item) if isinstance(item, Image.Image) else item
