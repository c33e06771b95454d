"""The architectures that people run, at full size with random weights, built where they are used.

No hub and no disk: the time and the memory of a model don't depend on what it has learned. ``small``
gives the same parts at a few layers, for the tests and for a look at a CPU.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from tests.generators.tiny_tokenizers import byte_tokenizer, clip_tokenizer


def _drawn_on(device: str, dtype: Any) -> AbstractContextManager[Any]:
    """Where weights are drawn, in which precision: in place, without a copy in float32."""
    import torch

    class _Default:
        def __enter__(self) -> None:
            self.before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)

        def __exit__(self, *error: object) -> None:
            torch.set_default_dtype(self.before)

    stack = ExitStack()
    stack.enter_context(torch.device(device))
    stack.enter_context(_Default())
    return stack


def blip2(device: str, dtype: Any, small: bool, layers: int | None = None) -> tuple[Any, Any]:
    """Model and processor of Salesforce/blip2-opt-2.7b; with fewer `layers` in each part if told."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
    )

    vocabulary = 512 if small else 50304
    # Whatever it draws is a word then; the last is the processor's own.
    tokenizer = byte_tokenizer("opt", words=vocabulary - 1)
    queries, side = (4, 32) if small else (32, 224)
    # It adds the token that stands for the picture.
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": side, "width": side}),
        tokenizer,
        num_query_tokens=queries,
    )
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    vision = {**width, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    former = {**width, "num_attention_heads": 4, "vocab_size": 16, "encoder_hidden_size": 32}
    text = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    if not small:
        vision = former = {"num_hidden_layers": layers} if layers else {}
        text = {"hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": layers or 32}
        text["num_attention_heads"] = 32
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**vision),
        qformer_config=Blip2QFormerConfig(**former),
        text_config=OPTConfig(
            **text,
            word_embed_proj_dim=text["hidden_size"],
            vocab_size=vocabulary,
            max_position_embeddings=2048,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        ),
        num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with _drawn_on(device, dtype):
        model: Any = Blip2ForConditionalGeneration(config)
    return model.to(dtype).eval(), processor


def autoencoder(device: str, small: bool) -> Any:
    """The VAE of SDXL, in float32, since it overflows in half precision."""
    import torch
    from diffusers import AutoencoderKL

    with _drawn_on(device, torch.float32):
        vae = AutoencoderKL(
            block_out_channels=(16,) * 4 if small else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if small else 2,
            latent_channels=4,
            sample_size=64 if small else 1024,
            norm_num_groups=8 if small else 32,
            scaling_factor=0.13025,
            force_upcast=True,
        )
    return vae.eval()


def sdxl(device: str, dtype: Any, small: bool, vae: Any = None) -> Any:
    """The pipeline of stabilityai/stable-diffusion-xl-base-1.0, or its parts about a given VAE."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = clip_tokenizer(Path(folder))

    def text(width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer) if small else 49408,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    first = text(32, 1, 4, "gelu") if small else text(768, 12, 12, "quick_gelu")
    second = text(32, 1, 4, "gelu") if small else text(1280, 32, 20, "gelu")
    blocks = 2 if small else 3
    with _drawn_on(device, dtype):
        unet = UNet2DConditionModel(
            sample_size=8 if small else 128,
            block_out_channels=(32, 64) if small else (320, 640, 1280),
            layers_per_block=1 if small else 2,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (blocks - 1)),
            up_block_types=(*["CrossAttnUpBlock2D"] * (blocks - 1), "UpBlock2D"),
            transformer_layers_per_block=(1, 1) if small else (1, 2, 10),
            attention_head_dim=(2, 4) if small else (5, 10, 20),
            cross_attention_dim=first.hidden_size + second.hidden_size,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8 if small else 256,
            projection_class_embeddings_input_dim=6 * (8 if small else 256) + second.projection_dim,
            norm_num_groups=8 if small else 32,
        )
        encoders = CLIPTextModel(first), CLIPTextModelWithProjection(second)
    pipe = StableDiffusionXLPipeline(
        vae=vae or autoencoder(device, small),
        text_encoder=encoders[0].to(dtype).eval(),
        text_encoder_2=encoders[1].to(dtype).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.to(dtype).eval(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
