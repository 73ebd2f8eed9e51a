"""InstructPix2Pix (Brooks et al. 2023): with an instruction written by hand, and with a learnt token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError
from dmp_core.methods.instruct.settings import (
    HardInstructConfig,
    HardInstructFit,
    LearnedInstructConfig,
    LearnedInstructFit,
)
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.generation import card_of, editor_to_train_with, instructed, open_editor
from dmp_core.progress import Progress

INSTRUCTION_FILE = "instruction.json"


class HardInstruct:
    """`fit` saves the instruction."""

    name, title = "ip2p_hard", "InstructPix2Pix (hard)"
    needs: Needs = "nothing"
    settings: type[MethodConfig] = HardInstructConfig

    def fit(
        self,
        settings: HardInstructFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        return _write_instruction(out, settings.instructions.get(problem.modality.name, problem.modality.instruction))

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        return instructed(open_editor(problem, inference, device), _read_instruction(folder), problem, inference)


class LearnedInstruct:
    """`fit` writes the token and the instruction that contains it."""

    name, title = "ip2p_learned", "InstructPix2Pix (learned)"
    needs: Needs = "latents"
    settings: type[MethodConfig] = LearnedInstructConfig

    def fit(
        self,
        settings: LearnedInstructFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        from dmp_core.methods.instruct.token import fit_token
        from dmp_core.training.precision import without_emulated_bf16

        config = without_emulated_bf16(settings.fit, device)
        editor = editor_to_train_with(problem, config.mixed_precision, device)
        pairs = data.latent_pairs(config.batch_size, config.seed)
        result = fit_token(
            config, editor, pairs, work, out, card=card_of(problem, data), device=device, progress=progress
        )
        return result.summary() | _write_instruction(out, config.instruction)

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        from dmp_core.methods.instruct.token import learned_instruction

        editor = open_editor(problem, inference, device)
        instruction = learned_instruction(editor, folder, _read_instruction(folder))
        return instructed(editor, instruction, problem, inference)


def _write_instruction(folder: Path, instruction: str) -> dict[str, Any]:
    (folder / INSTRUCTION_FILE).write_text(json.dumps({"instruction": instruction}) + "\n")
    return {"instruction": instruction}


def _read_instruction(folder: Path) -> str:
    file = folder / INSTRUCTION_FILE
    try:
        return str(json.loads(file.read_text())["instruction"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: contains no instruction ({error}); fit the method first") from None
