"""Settings of InstructPix2Pix with an instruction written by hand, and with a learnt token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dmp_core.methods.shared.settings import EditorMethodConfig, EditSampling, Instructions, part_of
from dmp_core.training.settings import FitConfig


class HardInstructFit(EditorMethodConfig):
    """Nothing is trained: the instruction is saved as it is."""

    method: Literal["ip2p_hard"] = "ip2p_hard"
    instructions: Instructions
    """Modality → the editor's instruction; by default the modality's own."""


class HardInstructConfig(HardInstructFit):
    """InstructPix2Pix with instructions written by hand."""

    sampling: EditSampling = EditSampling()

    @property
    def fitted(self) -> HardInstructFit:
        return part_of(self, HardInstructFit)

    @property
    def inference(self) -> EditSampling:
        return self.sampling


class TokenConfig(FitConfig):
    """One token's embedding learns, all else is frozen (Gal et al. 2023's rate and steps)."""

    steps: PositiveInt = 5000
    learning_rate: PositiveFloat = 5e-3
    lr_schedule: Literal["cosine", "constant", "linear"] = "constant"
    instruction: Annotated[str, Field(pattern=r"(^|\s)\*(\s|$)")] = "make it into *"
    """The asterisk marks the token's place."""
    initial_word: str = "map"
    """The embedding that it starts from."""


class LearnedInstructFit(EditorMethodConfig):
    """One token of the instruction, optimised on the training set."""

    method: Literal["ip2p_learned"] = "ip2p_learned"
    fit: TokenConfig = TokenConfig()

    @property
    def draws(self) -> int:
        return self.fit.draws


class LearnedInstructConfig(LearnedInstructFit):
    """InstructPix2Pix with the learnt token in its instruction."""

    sampling: EditSampling = EditSampling()

    @property
    def fitted(self) -> LearnedInstructFit:
        return part_of(self, LearnedInstructFit)

    @property
    def inference(self) -> EditSampling:
        return self.sampling
