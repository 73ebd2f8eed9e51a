"""A random Llama and BLOOM of a few thousand weights, and a GGUF file: real models, made by the tests."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dmp_core.prompts.words import words_of

WORDS = words_of(
    "a, the, with, and, of, in, at, red, blue, green, white, yellow, brown, bed, lamp, chair, rug, window, pillow, "
    "wall, table, desk, oak, wooden, velvet, bright, sunny, night, morning, cozy, large, small, room, bedroom, "
    "kitchen, photo, light, street, describe"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def save_tiny_lm(folder: Path, chat_template: str | None = None, seed: int = 0) -> Path:
    """A folder like a hub download: words as tokens, so that random texts read like captions."""
    size = _save_tokenizer(folder, chat_template)
    torch.manual_seed(seed)
    # Large initial weights: a random model of the usual scale gives the same output for any input.
    LlamaForCausalLM(_config(size, initializer_range=0.6)).save_pretrained(folder)
    return folder


def save_tiny_bloom(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The same with BLOOM, the architecture of bloomz: its attention uses positions only via ALiBi.

    Heads have 32 channels, the fewest that vLLM's attention accepts.
    """
    size = _save_tokenizer(folder, None)
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=size,
        hidden_size=64,
        n_layer=2,
        n_head=2,
        seq_length=256,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    BloomForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def add_code(folder: Path, marker: Path) -> None:
    """Gives a model its own Python code, as hub repositories may have; it creates `marker` when it runs."""
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": code}))
    (folder / "own.py").write_text(
        f"from transformers import LlamaConfig, LlamaForCausalLM\nopen({str(marker)!r}, 'w').close()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\nclass OwnModel(LlamaForCausalLM): ...\n"
    )


def _save_tokenizer(folder: Path, chat_template: str | None) -> int:
    """Writes the tokenizer; returns the size of its vocabulary."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS, ".", "<|user|>", "<|assistant|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return len(vocabulary)


def _config(vocab_size: int, initializer_range: float = 0.02) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=initializer_range,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def save_tiny_gguf(path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Writes a GGUF file of a random Llama; returns some of its weights, as they must be read."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*SPECIAL, *letters, "Ġ", ".", "Ġa", "Ġt", "in"]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(len(tokens)))
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ a", "Ġ t", "i n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in weights.items():
        stem, _, suffix = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Attention projections are stored permuted, so only the others read back as written.
    return {name: tensor for name, tensor in weights.items() if "mlp" in name or "embed" in name}
