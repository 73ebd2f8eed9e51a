"""SPADE (Park et al. 2019), trained from scratch on the training set's images."""

from __future__ import annotations

from dmp_core.methods.shared.translation import Algorithm, TranslationMethod
from dmp_core.methods.spade.settings import SpadeConfig, SpadeSettings


class Spade(TranslationMethod):
    name, title = "spade", "SPADE"
    settings, network = SpadeSettings, SpadeConfig

    def algorithm(self) -> Algorithm:
        from dmp_core.methods.spade.algorithm import SpadeModel, fit_spade

        return fit_spade, SpadeModel
