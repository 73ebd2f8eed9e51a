"""Latent shards: exact, deterministic, and checked against mix-ups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from dmp_core.diffusion.labels import encode
from dmp_core.errors import InputError, NotFinite
from dmp_core.images import image_to_vae
from dmp_core.modalities import Code, find_modality
from dmp_core.training.data import LatentPairs, without
from dmp_core.training.latents import encode_column, read_column, working_size
from dmp_core.weights.load import load_vae
from dmp_core.weights.settings import BaseConfig


@pytest.fixture(scope="module")
def vae(tiny_folder):
    return load_vae(BaseConfig(model=str(tiny_folder)))


def images(count: int = 5, size: tuple[int, int] = (16, 16)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def normals(count: int = 5) -> list[np.ndarray]:
    n = np.random.default_rng(1).standard_normal((count, 16, 16, 3))
    return list((n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32))


KEYS = [f"train-{n:08d}" for n in range(5)]


@torch.no_grad()
def test_latents_are_the_scaled_mode(vae):
    pixels = image_to_vae(np.stack(images()))
    latents = encode(vae, pixels, batch_size=2)
    expected = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_column_holds_plain_and_mirrored_latents(vae):
    column = read_column([encode_column(vae, "image", KEYS, images(), batch_size=2)])
    assert column.keys == tuple(KEYS)
    mirrored = image_to_vae(np.stack(images())[:, :, ::-1])
    torch.testing.assert_close(column.flipped, encode(vae, mirrored, 5), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_mirrored_normals_point_the_other_way(vae):
    column = read_column([encode_column(vae, "normal", KEYS, normals())])
    by_hand = torch.from_numpy(np.stack(normals())[:, :, ::-1].copy()).movedim(-1, 1)
    by_hand[:, 0] *= -1
    torch.testing.assert_close(column.flipped, encode(vae, by_hand, 5), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_depth_scale_reaches_the_vae(vae):
    depth = [np.full((16, 16), 3.0, np.float32)]
    column = read_column([encode_column(vae, "depth", KEYS[:1], depth, code=Code(depth_scale=4.0))])
    expected = encode(vae, find_modality("depth").to_image(np.stack(depth), Code(depth_scale=4.0)))
    torch.testing.assert_close(column.plain, expected, atol=1e-5, rtol=1e-5)


def test_shards_join_in_order_and_halves_are_stored(vae):
    parts = [
        encode_column(vae, "image", KEYS[a:b], images()[a:b], flip=False, dtype=torch.float16)
        for a, b in ((0, 3), (3, 5))
    ]
    column = read_column(parts)
    assert column.keys == tuple(KEYS)
    assert column.plain.shape == (5, 4, 4, 4)
    assert column.plain.dtype == torch.float16
    assert column.flipped is None


def test_bytes_are_always_the_same(vae):
    """The hash maps of safetensors' Rust side have a new seed each time, so repeating would show it."""
    first = encode_column(vae, "image", KEYS, images())
    assert all(encode_column(vae, "image", KEYS, images()) == first for _ in range(5))


def test_images_are_resized_to_whole_latents(vae):
    assert working_size((100, 200), 64, 8) == (64, 128)
    assert working_size((17, 30), None, 4) == (16, 32)
    column = read_column([encode_column(vae, "image", KEYS, images(size=(32, 24)), resolution=12)])
    assert column.plain.shape[-2:] == (4, 3)


def test_wrong_columns_are_named(vae):
    with pytest.raises(InputError, match="4 keys for 5 arrays"):
        encode_column(vae, "image", KEYS[:4], images())
    with pytest.raises(InputError, match=r"differ in size.*latents.resolution"):
        encode_column(vae, "image", KEYS, [*images(4), *images(1, (20, 16))])
    with pytest.raises(InputError, match="latent shard 0: unreadable"):
        read_column([b"garbage"])
    with pytest.raises(InputError, match="no shard"):
        read_column([])
    with pytest.raises(InputError, match="different kinds"):
        read_column([encode_column(vae, "image", KEYS, images()), encode_column(vae, "normal", KEYS, normals())])


def test_latents_that_are_not_finite_are_refused_by_key_and_when_read(tiny_base):
    images = [np.full((16, 16, 3), level, dtype=np.uint8) for level in (0, 1)]
    tiny_base.vae.quant_conv.bias.data.fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"^a: the model's output holds NaN or infinity"):
        encode_column(tiny_base.vae, "image", ["a", "b"], images)
    plain = torch.zeros(2, 4, 2, 2)
    plain[1, 0, 0, 0] = float("inf")
    stored = save({"plain": plain}, {"dmp": '{"column": "image", "keys": ["a", "b"]}'})
    with pytest.raises(InputError, match="latent shard 0: tensor plain holds NaN or infinity"):
        read_column([stored])


def test_half_precision_that_overflows_is_refused_by_key(tiny_base):
    images = [np.full((16, 16, 3), level, dtype=np.uint8) for level in (0, 255)]
    tiny_base.vae.quant_conv.bias.data.fill_(1e6)
    with pytest.raises(NotFinite, match=r"^a: "):
        encode_column(tiny_base.vae, "image", ["a", "b"], images, dtype=torch.float16)


def held() -> int:
    """Bytes of this process's memory that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
def test_latents_stay_in_their_files(tmp_path):
    size = 64 * 2**20
    for number in range(2):
        keys = [f"{number}-{index}" for index in range(4)]
        latents = torch.zeros(4, size // 16)[..., None, None]
        about = {"dmp": json.dumps({"column": "image", "keys": keys})}
        save_file({"plain": latents, "flipped": latents.clone()}, tmp_path / f"{number}.safetensors", about)
    del latents
    before = held()
    column = read_column(tmp_path / f"{number}.safetensors" for number in range(2))
    pairs = LatentPairs(without(column, {"0-1"}), without(column, {"0-1"}), batch_size=1)
    assert len(pairs) == 7
    assert held() - before < size / 4  # of 4 * size that the files contain


def test_mapped_latents_are_drawn_as_those_in_memory(tmp_path):
    random = torch.Generator().manual_seed(0)
    stored = []
    for number, count in enumerate((3, 2, 4)):
        about = {"dmp": json.dumps({"column": "image", "keys": [f"{number}-{index}" for index in range(count)]})}
        tensors = {name: torch.randn(count, 2, 2, 2, generator=random) for name in ("plain", "flipped")}
        stored.append(save(tensors, about))
        (tmp_path / f"{number}.safetensors").write_bytes(stored[-1])
    memory, mapped = read_column(stored), read_column(sorted(tmp_path.iterdir()))
    assert mapped.keys == memory.keys
    assert torch.equal(mapped.plain[:], memory.plain)
    assert torch.equal(mapped.flipped[2:7], memory.flipped[2:7])
    for excluded in ((), ("0-2", "2-0")):
        one, other = (LatentPairs(column, column, 4, exclude=excluded) for column in (memory, mapped))
        assert one.source.shape == other.source.shape == (2, 9 - len(excluded), 2, 2, 2)
        for step in range(10):
            batch = one.batch(step)
            for expected, found in zip(one.gather(batch), other.gather(batch), strict=True):
                assert torch.equal(expected, found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "unreadable latent shard"),
        (save({"plain": torch.zeros(1, 4, 2, 2)}), "unreadable latent shard"),
        (save({}, {"dmp": '{"column": "image", "keys": []}'}), "unreadable latent shard"),
        (save({"plain": torch.zeros(2, 4, 2, 2)}, {"dmp": '{"column": "image", "keys": ["a"]}'}), "1 keys for 2"),
        (save({"plain": torch.full((1, 4, 2, 2), torch.nan)}, {"dmp": '{"column": "image", "keys": ["a"]}'}), "NaN"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "shard.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"shard\.safetensors: .*{message}"):
        read_column([tmp_path / "shard.safetensors"])
