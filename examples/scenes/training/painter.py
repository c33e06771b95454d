"""The image generator: its untrained parts, how they read a prompt, and its checkpoint folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from examples.scenes.training.texts import CONTEXT
from examples.scenes.training.towers import EMBED_DIM
from examples.scenes.training.vae import LATENT_CHANNELS

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionXLPipeline
    from torch import nn

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}


def text_config(tokenizer: Any, width: int, projection: int, context: int = CONTEXT) -> Any:
    """Give the configuration of a CLIP text tower of two layers."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=context,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def new_painter(tokenizer: Any) -> nn.Module:
    """Make the untrained U-Net and its two text encoders, in one module."""
    from diffusers import UNet2DConditionModel
    from torch import nn
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 64),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=160,
        attention_head_dim=4,
        transformer_layers_per_block=1,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=EMBED_DIM + 6 * 8,
        resnet_time_scale_shift="scale_shift",
    )
    return nn.ModuleDict(
        {
            "unet": unet,
            "text_encoder": CLIPTextModel(text_config(tokenizer, 32, 32)),
            "text_encoder_2": CLIPTextModelWithProjection(text_config(tokenizer, 128, EMBED_DIM)),
        }
    )


def adopt_text_tower(target: nn.Module, source: dict[str, torch.Tensor]) -> None:
    """Copy the text tower of an open_clip state into a `CLIPTextModelWithProjection`.

    The projection is scaled so that pooled embeddings have entries of about unit size.
    """
    state: dict[str, torch.Tensor] = {}
    for key in target.state_dict():
        name = key.removeprefix("text_model.")
        if name == "embeddings.token_embedding.weight":
            state[key] = source["token_embedding.weight"]
        elif name == "embeddings.position_embedding.weight":
            state[key] = source["positional_embedding"]
        elif name.startswith("final_layer_norm."):
            state[key] = source[name.replace("final_layer_norm", "ln_final")]
        elif name == "text_projection.weight":
            state[key] = source["text_projection"].T.contiguous()
        elif name.startswith("encoder.layers."):
            layer, rest = name.removeprefix("encoder.layers.").split(".", 1)
            block = f"transformer.resblocks.{layer}."
            part, kind = rest.rsplit(".", 1)
            if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                third = ("q", "k", "v").index(part[len("self_attn.")])
                state[key] = source[f"{block}attn.in_proj_{kind}"].chunk(3)[third].clone()
            else:
                names = {
                    "self_attn.out_proj": "attn.out_proj",
                    "layer_norm1": "ln_1",
                    "layer_norm2": "ln_2",
                    "mlp.fc1": "mlp.c_fc",
                    "mlp.fc2": "mlp.c_proj",
                }
                state[key] = source[f"{block}{names[part]}.{kind}"]
        else:
            state[key] = target.state_dict()[key]
    target.load_state_dict({key: value.float() for key, value in state.items()})


def encode_prompts(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give hidden states and pooled embedding as `StableDiffusionXLPipeline.encode_prompt`."""
    import torch

    first = model["text_encoder"](tokens, output_hidden_states=True)
    second = model["text_encoder_2"](tokens, output_hidden_states=True)
    hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return hidden, second.text_embeds


def write_pipeline(
    model: Any,
    vae: Any,
    tokenizer: Any,
    folder: Path,
    scheduler: Mapping[str, Any] = MappingProxyType(SCHEDULER),
) -> StableDiffusionXLPipeline:
    """Write the pipeline's folder in half precision, swapped in whole."""
    import copy

    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        unet=model["unet"],
        text_encoder=model["text_encoder"],
        text_encoder_2=model["text_encoder_2"],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=DDIMScheduler(**scheduler),
        add_watermarker=False,
    )
    halves = {}
    for name in ("vae", "unet", "text_encoder", "text_encoder_2"):
        halves[name] = copy.deepcopy(getattr(pipeline, name)).to("cpu").half()
    half = StableDiffusionXLPipeline(
        **halves,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=pipeline.scheduler,
        add_watermarker=False,
    )
    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    half.save_pretrained(beside, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return pipeline
