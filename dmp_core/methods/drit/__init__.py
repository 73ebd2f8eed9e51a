"""DRIT++ (Lee et al. 2020), trained from scratch on the training set's images."""

from __future__ import annotations

from dmp_core.methods.drit.settings import DritConfig, DritSettings
from dmp_core.methods.shared.translation import Algorithm, TranslationMethod


class Drit(TranslationMethod):
    name, title = "drit", "DRIT++"
    settings, network = DritSettings, DritConfig

    def algorithm(self) -> Algorithm:
        from dmp_core.methods.drit.algorithm import DritModel, fit_drit

        return fit_drit, DritModel
