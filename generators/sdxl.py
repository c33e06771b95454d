"""Images by Stable Diffusion XL (Podell et al. 2023), grounded by the example's caption or image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from generators.base import ImageRequest
from generators.diffusion import DiffusersImageGenerator, Job
from generators.diffusion_pipeline import arguments_of
from generators.sdxl_adapter import load_adapter
from generators.sdxl_conditions import Conditions
from generators.sdxl_settings import SdxlSettings

if TYPE_CHECKING:
    import torch


class SdxlImageGenerator(DiffusersImageGenerator):
    """Images of texts by an SDXL checkpoint.

    As any other pipeline, but that what conditions a row's n images is encoded once for all of them,
    and that an adapter (IP-Adapter) may ground them.

    Parameters
    ----------
    settings : SdxlSettings
    paths : mapping
        ``model`` -> local folder of the checkpoint; ``ip_adapter`` -> that of the adapter where the
        grounding uses it; ``vae`` and ``lora`` likewise.
    """

    Settings = SdxlSettings
    settings: SdxlSettings
    _conditions: Conditions | None = None

    def _own_dtype(self) -> str:
        # SDXL is published, and drawn by everyone, in float16; its VAE is seen to by `Vae`.
        return "float16"

    def _read(self, dtype: torch.dtype) -> tuple[Any, Any]:
        pipe, with_picture = super()._read(dtype)
        if self.settings.grounding == "ip_adapter":
            load_adapter(pipe, self.settings.ip_adapter, self.paths, dtype)
        return pipe, with_picture

    def _takes_several(self) -> bool:
        return self.settings.grounding == "ip_adapter"

    def _begin(self, requests: Sequence[ImageRequest]) -> None:
        assert self._vae is not None
        self._conditions = Conditions(self.settings, self._pipe, self._vae, requests)

    def _forget(self) -> None:
        self._conditions = None

    def _sample(self, jobs: list[Job], generators: list[torch.Generator]) -> Any:
        conditions, pipe = self._conditions, self._pipe
        assert conditions is not None
        given = conditions.texts(jobs)
        if self.settings.grounding == "img2img" and jobs[0].images:
            pipe = self._with_picture
            given["image"] = conditions.start(jobs, generators)
        elif self.settings.grounding == "ip_adapter":
            given["ip_adapter_image_embeds"] = [conditions.image_prompt(jobs)]
        return pipe(**given, **arguments_of(self.settings, pipe, jobs[0].size, generators))
