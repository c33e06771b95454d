"""Components (encoder, captioner, image generator) by `kind`, and the checkpoints that they name."""
