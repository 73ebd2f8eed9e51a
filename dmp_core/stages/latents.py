"""one column of the training data → VAE latents: `shard-*.tar`-numbered safetensors, plain and flipped"""
