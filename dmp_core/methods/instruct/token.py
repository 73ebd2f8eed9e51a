"""InstructPix2Pix (learned): one token of the instruction "make it into *" is optimised on the training set.

Textual inversion (Gal et al. 2023) on an editor: the token's embedding goes through the text encoder; neither it
nor the U-Net changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from dmp_core.diffusion import fingerprint
from dmp_core.diffusion.text import tokenise
from dmp_core.errors import InputError
from dmp_core.finite import check_weights
from dmp_core.methods.instruct.settings import TokenConfig
from dmp_core.methods.shared.editing import NoisyPairs
from dmp_core.progress import Progress, silent
from dmp_core.training.data import LatentPairs
from dmp_core.training.loop import FitResult, make_accelerator, train

WEIGHTS_FILE = "learned_embeds.safetensors"
TOKEN = "<label>"
"""The token's name in the file, which diffusers' `load_textual_inversion` opens."""


def fit_token(
    config: TokenConfig,
    editor: Any,
    pairs: LatentPairs,
    work: str | Path,
    out: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> FitResult:
    """Optimise the token on images (source) and their label images (target); resumes as every training does.

    editor: of `load_editor`; is not changed.
    out: gets `learned_embeds.safetensors`, in the format of textual inversion, and `loss.csv`.
    """
    accelerator = make_accelerator(config, device)
    about = {
        **(card or {}),
        "method": "ip2p_learned",
        "base_fingerprint": fingerprint(editor.unet),
        "training": config.recorded(),
        "samples": len(pairs),
    }
    process = NoisyPairs(editor, pairs, config.seed, accelerator)
    network = TokenPrompt(editor, config.instruction, initial_vector(editor, config.initial_word))
    network.to(accelerator.device)
    dtype = network.unet.dtype

    def loss_at(wrapped: Any, draw: int) -> Tensor:
        inputs = process(draw)
        return inputs.error(network.unet, inputs.before, wrapped().to(dtype))

    def save(folder: Path) -> None:
        save_file({TOKEN: network.vector.detach().cpu().contiguous()}, folder / WEIGHTS_FILE)

    parameters = {"vector": network.vector}
    return train(config, network, parameters, loss_at, work, out, about, save, accelerator, progress)


@torch.no_grad()
def learned_instruction(editor: Any, folder: str | Path, instruction: str = "make it into *") -> Tensor:
    """The embedding (L, D) of an instruction with the learned token in place of the asterisk, for `edit`.

    Raises InputError when the folder holds no token, or one for another text encoder.
    """
    file = Path(folder) / WEIGHTS_FILE
    try:
        stored = load_file(file)
        vector = next(iter(stored.values()))
    except (OSError, SafetensorError, StopIteration) as error:
        raise InputError(f"{file}: no learned token here ({error}); fit it first") from None
    check_weights(stored, file)
    width = editor.text_encoder.get_input_embeddings().weight.shape[1]
    if vector.shape[-1] != width:
        raise InputError(f"{file}: a token of {vector.shape[-1]} numbers, the editor's text encoder takes {width}")
    prompt: Tensor = TokenPrompt(editor, instruction, vector)()[0]
    return prompt


class TokenPrompt(nn.Module):
    """An instruction with one trained token; calling it gives the embedding (1, L, D)."""

    def __init__(self, editor: Any, instruction: str, vector: Tensor) -> None:
        """vector: the token's input embedding, (1, D)."""
        super().__init__()
        self.text_encoder = editor.text_encoder.requires_grad_(False).eval()
        self.unet = editor.unet.requires_grad_(False).eval()
        weight = self.text_encoder.get_input_embeddings().weight
        self.name = next(name for name, value in self.text_encoder.named_parameters() if value is weight)
        self.vector = nn.Parameter(vector.detach().clone().float().view(1, -1))
        ids = _place_token(editor.tokenizer, instruction, len(weight))
        self.register_buffer("ids", ids.to(weight.device), persistent=False)

    def forward(self) -> Tensor:
        # One more row in the embedding table: the encoder itself does not change.
        table = dict(self.text_encoder.named_parameters())[self.name]
        rows = torch.cat([table, self.vector.to(table.device, table.dtype)])
        embedding: Tensor = functional_call(self.text_encoder, {self.name: rows}, (self.ids,))[0]
        return embedding


def initial_vector(editor: Any, word: str) -> Tensor:
    """Input embedding (1, D) of a word: the mean of its tokens'."""
    ids = editor.tokenizer(word, add_special_tokens=False).input_ids
    if not ids:
        raise InputError(f"fit.initial_word: {word!r} has no token in this tokenizer; choose a plain word")
    weight: Tensor = editor.text_encoder.get_input_embeddings().weight
    return weight[torch.tensor(ids, device=weight.device)].mean(dim=0, keepdim=True).detach()


def _place_token(tokenizer: Any, instruction: str, number: int) -> Tensor:
    """Token ids (1, L), with `number` in place of the asterisk."""
    parts = instruction.split("*")
    if len(parts) != 2:
        raise InputError(f"instruction: {instruction!r}; write one asterisk in place of the learned token")
    before, after = (tokenizer(part, add_special_tokens=False).input_ids for part in parts)
    length = tokenizer.model_max_length
    if len(before) + len(after) + 3 > length:
        raise InputError(f"instruction: {instruction!r} is longer than the text encoder's {length} tokens")
    ids = tokenise(tokenizer, [""])[0].clone()  # start, end, padding
    start, end = int(ids[0]), int(ids[1])
    written = torch.tensor([start, *before, number, *after, end])
    ids[: len(written)] = written
    return ids[None]
