"""Load a diffusion pipeline of whatever family, from disk and safetensors alone."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from generators.checkpoints import PICKLE_SUFFIXES, local_folder, require_safetensors
from generators.diffusion_settings import (
    DiffusionSettings,
    SchedulerSettings,
    check_kept,
    check_steps,
)
from generators.frames import Size
from generators.lora import merge_lora

if TYPE_CHECKING:
    import torch

Task = Literal["TEXT2IMAGE", "IMAGE2IMAGE"]
# Pipelines for which a list of pictures is several references of one image; for others it is a batch.
SEVERAL_REFERENCES = frozenset({"QwenImageEditPlusPipeline", "Flux2Pipeline", "Flux2KleinPipeline"})
# Schedulers that find their own timesteps, whatever their spacing is said to be.
OWN_SPACING = frozenset({"LCMScheduler", "TCDScheduler"})
# What the generator passes itself.
MANAGED = frozenset(
    {"prompt", "image", "generator", "output_type", "return_dict", "num_images_per_prompt"}
)


def pipeline_class(name: str, task: Task) -> Any:
    """The class of diffusers that does a task with the checkpoints of another; None without one."""
    from diffusers.pipelines import auto_pipeline

    mapping = getattr(auto_pipeline, f"AUTO_{task}_PIPELINES_MAPPING")
    return auto_pipeline._get_task_class(mapping, name, throw_error_if_not_exist=False)


def named_class(folder: Path) -> str:
    """The pipeline that a checkpoint's folder says it is of."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return str(index.get("_class_name"))


def own_dtype(folder: Path) -> str | None:
    """The precision that what denoises is written in, such as "bfloat16"."""
    from safetensors import safe_open

    for part in ("unet", "transformer"):
        for weights in sorted((folder / part).glob("*.safetensors")):
            with safe_open(weights, framework="pt") as file:
                name = next(iter(file.keys()))
                told = str(file.get_slice(name).get_dtype())
            return {"F16": "float16", "BF16": "bfloat16"}.get(told, "float32")
    return None


def load_pipeline(
    settings: DiffusionSettings, paths: Mapping[str, Path], dtype: torch.dtype
) -> tuple[Any, Any]:
    """The pipeline that draws from a text, and the one of the same parts that takes a picture.

    The second one is None where the grounding takes no picture by it.

    Raises
    ------
    ValueError
        When a folder isn't such a checkpoint in safetensors, or the pipeline can't do what is set.
    """
    folder = local_folder(paths, "model", "model_index.json")
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(file.suffix in PICKLE_SUFFIXES for file in part.iterdir()):
            require_safetensors(part)
    draws, takes = _classes(settings, named_class(folder))
    named: dict[str, Any] = {}
    if settings.vae is not None:
        named["vae"] = _vae(settings.vae.subfolder, paths, dtype)
    if "add_watermarker" in inspect.signature(draws.__init__).parameters:
        named["add_watermarker"] = False
    weights = [path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")]
    pipe = draws.from_pretrained(
        folder,
        dtype=dtype,
        variant=settings.read_variant(weights),
        use_safetensors=True,
        local_files_only=True,
        **named,
    )
    if settings.lora is not None:
        merge_lora(pipe, settings.lora, paths)
    if settings.scheduler is not None:
        pipe.scheduler = _scheduler(settings.scheduler, pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    other = None
    if settings.grounding in ("img2img", "reference"):
        other = pipe if takes is draws else _with_picture(pipe, named)
    for one in (pipe, other):
        if one is not None:
            _check(settings, one)
    return pipe, other


def parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """What a pipeline is called with, by name."""
    return inspect.signature(type(pipe).__call__).parameters


def arguments_of(
    settings: DiffusionSettings, pipe: Any, size: Size, generators: Sequence[torch.Generator]
) -> dict[str, Any]:
    """How a pipeline is called besides its conditions: what it takes of what is set.

    Parameters
    ----------
    settings, pipe
    size : (int, int)
        Width and height that are drawn.
    generators : sequence of torch.Generator
        One for each picture.
    """
    takes, (width, height) = parameters(pipe), size
    wanted = {
        "generator": generators,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "strength": settings.strength,
        "width": width,
        "height": height,
        # Kontext's would scale every size to a megapixel.
        "max_area": width * height,
        # Where it is on by itself (PixArt, IF), words of the recorded prompt would not reach the model.
        "clean_caption": False,
        "output_type": "pt",
        **getattr(settings, "arguments", {}),
    }
    return {name: v for name, v in wanted.items() if v is not None and name in takes}


def steps_of(settings: DiffusionSettings, pipe: Any) -> int:
    """Denoising steps: those that are set, or the pipeline's own number."""
    if settings.steps is not None:
        return settings.steps
    default = parameters(pipe).get("num_inference_steps")
    return default.default if default is not None and isinstance(default.default, int) else 1


def _classes(settings: DiffusionSettings, name: str) -> tuple[Any, Any]:
    """The classes that draw from a text and from a picture with a checkpoint of this class."""
    draws, takes = pipeline_class(name, "TEXT2IMAGE"), pipeline_class(name, "IMAGE2IMAGE")
    if settings.kind == "sdxl" and getattr(draws, "__name__", "") != "StableDiffusionXLPipeline":
        raise ValueError(f"model is a {name}, no Stable Diffusion XL; set kind to diffusers")
    refers = takes is not None and _refers(takes)
    if settings.grounding == "img2img" and (takes is None or refers):
        other = "reference, prompt or none" if refers else "prompt or none"
        raise ValueError(f"grounding img2img: {name} has none; set it to {other}")
    if settings.grounding == "reference" and not refers:
        raise ValueError(
            f"grounding reference: {name} takes no reference pictures; set it to img2img, prompt"
            " or none"
        )
    if draws is None and settings.grounding == "reference":
        draws = takes
    if draws is None:
        raise ValueError(f"model is a {name}, which draws no image of a text alone")
    return draws, takes


def _refers(cls: Any) -> bool:
    """Whether a pipeline takes a picture to refer to, not one to start from or to paint over."""
    taken = inspect.signature(cls.__call__).parameters
    return "image" in taken and not {"strength", "mask_image"} & set(taken)


def _with_picture(pipe: Any, named: Mapping[str, Any]) -> Any:
    from diffusers import AutoPipelineForImage2Image

    mark = {name: value for name, value in named.items() if name == "add_watermarker"}
    other: Any = AutoPipelineForImage2Image.from_pipe(pipe, **mark)
    other.set_progress_bar_config(disable=True)
    return other


def _vae(subfolder: str, paths: Mapping[str, Path], dtype: torch.dtype) -> Any:
    """The VAE that takes the place of the checkpoint's own."""
    import diffusers

    folder = local_folder(paths, "vae", str(Path(subfolder) / "config.json")) / subfolder
    require_safetensors(folder)
    name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "")
    cls = (
        getattr(diffusers, name, None)
        if name.startswith(("Autoencoder", "AsymmetricAuto"))
        else None
    )
    if cls is None:
        raise ValueError(
            f"vae folder {str(folder)!r} holds {name or 'no class'!r}, no VAE of diffusers"
        )
    plain = any("." not in path.stem for path in folder.glob("*.safetensors"))
    return cls.from_pretrained(
        folder,
        dtype=dtype,
        variant=None if plain else "fp16",
        use_safetensors=True,
        local_files_only=True,
    )


def _scheduler(settings: SchedulerSettings, own: Any) -> Any:
    """The scheduler that is set, with the checkpoint's values where it has them.

    Raises
    ------
    ValueError
        When it can't take the place of the checkpoint's own.
    """
    import diffusers

    name, before = settings.name, type(own).__name__
    cls: Any = getattr(diffusers, name)
    if name != before and _family(name, settings.options) != _family(before, own.config):
        raise ValueError(
            f"scheduler {name} can't take the steps of a model that was made for {before}"
        )
    try:
        return cls.from_config(own.config, **settings.options)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(f"scheduler {settings.name}: {error}") from error


def _family(name: str, options: Mapping[str, Any]) -> str:
    """Which models a scheduler denoises: diffusion by noise levels, flow matching, or its own."""
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

    if name.startswith("FlowMatch") or options.get("use_flow_sigmas"):
        return "flow"
    diffusion = {one.name for one in KarrasDiffusionSchedulers} | OWN_SPACING
    return "diffusion" if name in diffusion else name


def _check(settings: DiffusionSettings, pipe: Any) -> None:
    """Raises ValueError where a pipeline can't be called as it is set."""
    name, taken = type(pipe).__name__, parameters(pipe)
    for field in ("negative_prompt", "guidance_scale"):
        if getattr(settings, field) is not None and field not in taken:
            raise ValueError(f"{field} is not for {name}; leave it out")
    if "strength" in taken:
        check_steps(steps_of(settings, pipe), settings.strength)
        if _family(type(pipe.scheduler).__name__, pipe.scheduler.config) == "flow":
            check_kept(steps_of(settings, pipe), settings.strength, name)
    for field in getattr(settings, "arguments", {}):
        if field in MANAGED or field in type(settings).model_fields or field not in taken:
            free = sorted(set(taken) - MANAGED - set(type(settings).model_fields) - {"self"})
            raise ValueError(f"arguments of {name} are {', '.join(free)}; got {field!r}")
    _check_scheduler(settings, pipe.scheduler, steps_of(settings, pipe))


def _check_scheduler(settings: DiffusionSettings, scheduler: Any, steps: int) -> None:
    name, spacing = type(scheduler).__name__, scheduler.config.get("timestep_spacing")
    lora = settings.lora is not None and settings.distilled
    if lora and spacing not in (None, "trailing") and name not in OWN_SPACING:
        raise ValueError(
            f"scheduler: {settings.distilled} has learned the timesteps of spacing trailing, and"
            f" {name} has {spacing}; set scheduler: {{name: {name}, options: {{timestep_spacing:"
            " trailing}}"
        )
    if scheduler.config.get("use_dynamic_shifting"):
        return  # its timesteps depend on the size of the image
    try:
        copy.deepcopy(scheduler).set_timesteps(steps)
    except ValueError as error:
        raise ValueError(f"steps {steps}: {name} can't take them: {error}") from error
