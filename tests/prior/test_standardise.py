"""Standardised latents: unit channels, and an autoencoder with the same output."""

from __future__ import annotations

import torch

from dmp_core.prior.standardise import standardise_latents


def test_channels_become_standard_and_reconstructions_stay():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=5, norm_num_groups=4)  # fmt: skip
    with torch.no_grad():  # channels of very different spread and centre, as after training
        vae.quant_conv.weight[:5] *= torch.tensor([0.3, 1.0, 2.0, 5.0, 9.0])[:, None, None, None]
        vae.quant_conv.bias[:5] = torch.tensor([3.0, -2.0, 0.0, 1.0, 7.0])
        images = torch.rand(6, 3, 16, 16) * 2 - 1
        before = vae.encode(images).latent_dist
        decoded = vae.decode(before.mean).sample
        spread = before.std / before.mean.std(dim=(0, 2, 3), keepdim=True)
        standardise_latents(vae, images, batch_size=4)
        after = vae.encode(images).latent_dist
        torch.testing.assert_close(after.mean.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std, spread, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, atol=1e-4, rtol=1e-3)
