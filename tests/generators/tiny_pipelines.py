"""Tiny diffusion pipelines of random weights, of other families than SDXL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.generators.tiny_tokenizers import byte_tokenizer, clip_tokenizer


def _vae(channels: int, **config: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16,) * 4,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=64,
        force_upcast=False,
        **config,
    )


def clip_config(tokenizer: Any, **config: Any) -> Any:
    """Of a text encoder of CLIP's kind, 32 wide."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
        **config,
    )


def _t5(tokenizer: Any, width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
    )


def stable_diffusion(folder: Path) -> Path:
    """A Stable Diffusion 1 that draws 64 x 64 pixels by 8 x 8 latents."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    tokenizer = clip_tokenizer(folder / "made" / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
            norm_num_groups=8,
        )
        pipe = StableDiffusionPipeline(
            vae=_vae(4),
            text_encoder=CLIPTextModel(clip_config(tokenizer)),
            tokenizer=tokenizer,
            unet=unet,
            scheduler=DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def stable_diffusion_3(folder: Path) -> Path:
    """A transformer for flow matching, two CLIP encoders and a T5, 64 x 64 pixels."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    tokenizer = clip_tokenizer(folder / "made" / "tokenizer")
    reader = byte_tokenizer("t5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = clip_config(tokenizer)
        pipe = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=8,
                patch_size=1,
                in_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=64,
                pooled_projection_dim=64,
                out_channels=4,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(4, shift_factor=0.06, scaling_factor=1.5),
            text_encoder=CLIPTextModelWithProjection(config),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=tokenizer,
            text_encoder_3=_t5(reader, 64),
            tokenizer_3=reader,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def kontext(folder: Path) -> Path:
    """A FLUX.1 Kontext, which takes a reference picture beside the text; 64 x 64 pixels."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxKontextPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextModel

    tokenizer = clip_tokenizer(folder / "made" / "tokenizer")
    reader = byte_tokenizer("t5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        pipe = FluxKontextPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_vae(1, shift_factor=0.06, scaling_factor=1.5),
            text_encoder=CLIPTextModel(clip_config(tokenizer)),
            tokenizer=tokenizer,
            text_encoder_2=_t5(reader, 32),
            tokenizer_2=reader,
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=4,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=[4, 4, 8],
            ),
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder
