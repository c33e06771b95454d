"""Put an image prompt adapter (IP-Adapter, Ye et al. 2023) into an SDXL, from safetensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.checkpoints import local_folder, require_safetensors
from generators.sdxl_settings import IPAdapterSettings

if TYPE_CHECKING:
    import torch


def load_adapter(
    pipe: Any, settings: IPAdapterSettings, paths: Mapping[str, Path], dtype: torch.dtype
) -> None:
    """Put the adapter's weights into the UNet, and its image encoder beside it.

    The encoder is loaded here: diffusers' own loader would fall back to a pickle.
    """
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    folder = local_folder(paths, "ip_adapter", str(Path(settings.subfolder) / settings.weight_name))
    encoder_folder = folder / settings.image_encoder
    if not (encoder_folder / "config.json").is_file():
        raise ValueError(
            f"ip_adapter.image_encoder {settings.image_encoder!r} is not in {str(folder)!r}"
        )
    require_safetensors(encoder_folder)
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        encoder_folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    side = encoder.config.image_size
    pipe.register_modules(
        image_encoder=encoder.eval(),
        feature_extractor=CLIPImageProcessor(size=side, crop_size=side),
    )
    pipe.load_ip_adapter(
        str(folder),
        subfolder=settings.subfolder,
        weight_name=settings.weight_name,
        image_encoder_folder=None,
        local_files_only=True,
    )
    # diffusers reads a list of images as several images of one prompt, and repeats embeddings by
    # the whole batch. Ours hold a row for every prompt of the batch, and pass as they are.
    pipe.prepare_ip_adapter_image_embeds = lambda images, embeds, *rest: embeds
