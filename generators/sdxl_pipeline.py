"""Load the parts of an SDXL, from disk and safetensors alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.checkpoints import loading, local_folder, require_safetensors
from generators.sdxl_settings import IPAdapterSettings, SdxlSettings

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WEIGHTED_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def load_pipeline(settings: SdxlSettings, paths: Mapping[str, Path], dtype: torch.dtype) -> Any:
    """The text-to-image pipeline of a checkpoint, with the adapter where the grounding uses it.

    Raises
    ------
    ValueError
        When a folder isn't such a checkpoint in safetensors.
    """
    from diffusers import StableDiffusionXLPipeline

    folder = local_folder(paths, "model", "model_index.json")
    for part in WEIGHTED_PARTS:
        if (folder / part).is_dir():
            require_safetensors(folder / part)
    weights = [path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")]
    with loading():
        pipe = StableDiffusionXLPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=settings.read_variant(weights),
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
        )
        if settings.grounding == "ip_adapter":
            _load_adapter(pipe, settings.ip_adapter, paths, dtype)
    return pipe


def redrawing(pipe: Any) -> Any:
    """The image-to-image pipeline of the same parts, which are not copied."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    redraw: Any = StableDiffusionXLImg2ImgPipeline(
        **pipe.components,
        force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
        add_watermarker=False,
    )
    redraw.set_progress_bar_config(disable=True)
    return redraw


def _load_adapter(
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


def drawn_size(pipe: Any, setting: Any) -> tuple[int, int]:
    """(width, height) that the model draws; warns about one that it did not learn on.

    Raises
    ------
    ValueError
        When a side isn't a multiple of what one latent covers.
    """
    native = width_height(pipe.unet.config.sample_size, reverse=True)
    native = (native[0] * pipe.vae_scale_factor, native[1] * pipe.vae_scale_factor)
    size = native if setting == "auto" else width_height(setting)
    unit = max(8, pipe.vae_scale_factor)
    if any(side % unit for side in size):
        near = " x ".join(str(max(unit, round(side / unit) * unit)) for side in size)
        raise ValueError(
            f"size must be a multiple of {unit} pixels; got {size[0]} x {size[1]}, "
            f"the nearest is {near}"
        )
    area = size[0] * size[1] / (native[0] * native[1])
    if not 0.75 <= area <= 1.35:
        logger.warning(
            "size %d x %d is far from the %d x %d that the model learned on: expect poor images; "
            "leave size at auto and set output_size to resize the result",
            *size,
            *native,
        )
    return size


def width_height(size: Any, reverse: bool = False) -> tuple[int, int]:
    """(width, height) of a side, or of a pair; ``reverse`` for a pair given as height and width."""
    if isinstance(size, int):
        return size, size
    first, second = size
    return (second, first) if reverse else (first, second)
