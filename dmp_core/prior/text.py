"""The text side: a byte-pair tokenizer learnt from our captions, and a small CLIP text encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dmp_core.prior.config import PriorConfig
from dmp_core.prior.data import draw_scene

START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(config: PriorConfig, folder: Path) -> Any:
    """Learn the tokens from captions of the same grammar as the scenes', write `folder`, and load it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    text = config.unet.text
    if not (folder / "vocab.json").exists():
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token=END))
        learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
        split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), letters]
        learner.pre_tokenizer = pre_tokenizers.Sequence(split)
        learner.decoder = decoders.ByteLevel()
        # CLIP's vocabulary order: bytes, bytes at a word's end, merges, the two special tokens.
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=text.vocab_size - 2,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            show_progress=False,
        )
        captions = [draw_scene(config.scenes, index)[0] for index in range(text.captions)]
        learner.train_from_iterator(captions, trainer)
        learnt = json.loads(learner.to_str())["model"]
        merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learnt["merges"]]
        _write(folder, alphabet, merges[: text.vocab_size - 2 * len(alphabet) - 2])
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=text.max_length)


def _write(folder: Path, alphabet: list[str], merges: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}, indent=1)
    )
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))


def build_text_encoder(config: PriorConfig, tokenizer: Any) -> Any:
    """CLIPTextModel with random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    text = config.unet.text
    torch.manual_seed(config.unet.seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text.hidden_size,
            intermediate_size=4 * text.hidden_size,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            max_position_embeddings=text.max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            hidden_act="quick_gelu",
        )
    )
