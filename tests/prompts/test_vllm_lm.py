"""vLLM itself where it is installed, and its fallback where it is missing or cannot run the model."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dmp_core.errors import InputError
from dmp_core.prompts.base import CaptionGenerator
from dmp_core.prompts.server import ServerGenerator
from dmp_core.prompts.settings import TransformersPrompts, VLLMPrompts, vllm_bounds
from dmp_core.prompts.transformers_lm import TransformersGenerator
from dmp_core.prompts.vllm_lm import VLLMGenerator, open_vllm
from tests.prompts.tiny_lm import save_tiny_bloom

TEMPLATE = "describe a photo of a {keyword}"
KEYWORDS = ["bedroom", "kitchen", "large bright street at night", "room"]
SETTINGS = {"min_new_tokens": 3, "max_new_tokens": 12, "dtype": "float32", "max_model_len": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bloom(tmp_path_factory.mktemp("bloom"))


def settings(folder: Path, **others: object) -> VLLMPrompts:
    return VLLMPrompts.model_validate({"model": str(folder), **SETTINGS, **others})


# ------------------------------------------------------------------------------- no vLLM for this
INSTALLATIONS = {
    "cannot be imported (operator nms does not exist)": ("raise RuntimeError('operator nms does not exist')", "cpu"),
    "vLLM 0.99.0 finds no device": ("__version__ = '0.99.0'\nclass ModelRegistry: pass", ""),
    "vLLM 0.99.0 does not run BloomForCausalLM": (
        "__version__ = '0.99.0'\nclass ModelRegistry:\n    get_supported_archs = lambda: ['LlamaForCausalLM']",
        "cpu",
    ),
}

RECORDING = """
from types import SimpleNamespace
__version__ = "0.99.0"
class ModelRegistry:
    get_supported_archs = lambda: ["BloomForCausalLM"]
class SamplingParams(SimpleNamespace):
    pass
class LLM:
    asked = []
    def __init__(self, model, **options):
        self.model = model
    def get_tokenizer(self):
        from transformers import AutoTokenizer
        return AutoTokenizer.from_pretrained(self.model)
    def generate(self, requests, draws, use_tqdm):
        LLM.asked += zip(requests, draws)
        return [SimpleNamespace(outputs=[SimpleNamespace(text=request)]) for request in requests]
"""
"""An engine's interface without an engine: it keeps what it is asked for."""


@pytest.fixture
def unfit_vllm(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A vLLM that is installed but unsuitable; yields the expected reason."""
    code, device = INSTALLATIONS.get(request.param, (RECORDING, "cpu"))
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(code)
    (tmp_path / "vllm" / "platforms.py").write_text(f"class current_platform: device_type = {device!r}")
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "vllm"}
    monkeypatch.syspath_prepend(tmp_path)
    yield request.param
    for name in ("vllm", "vllm.platforms"):
        sys.modules.pop(name, None)
    sys.modules.update(real)


def test_the_fallback_keeps_every_setting_of_the_draw() -> None:
    """A setting that both kinds have may not get lost on the way from one to the other."""
    shared = TransformersPrompts.model_fields.keys() & VLLMPrompts.model_fields.keys() - {"kind"}
    assert {"top_k", "min_length", "max_length", "temperature", "eta_cutoff", "min_new_tokens", "revision"} <= shared


def test_vllm_s_names_of_the_bounds() -> None:
    paper = VLLMPrompts(top_k=50, min_new_tokens=0, min_length=15, max_length=128)
    assert vllm_bounds(paper, 50) == {"min_tokens": 0, "max_tokens": 78, "top_k": 50}
    assert vllm_bounds(paper, 10) == {"min_tokens": 5, "max_tokens": 118, "top_k": 50}
    assert vllm_bounds(VLLMPrompts(), 50) == {"min_tokens": 15, "max_tokens": 128}
    assert not VLLMPrompts().counts_request


@pytest.mark.parametrize("unfit_vllm", ["records what it is asked for"], indirect=True)
@pytest.mark.usefixtures("unfit_vllm")
def test_the_engine_gets_bounds_that_count_each_request(folder: Path) -> None:
    lm = open_vllm(settings(folder, top_k=50, min_new_tokens=0, max_new_tokens=100, min_length=8, max_length=20), "cpu")
    assert isinstance(lm, VLLMGenerator)
    lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = sys.modules["vllm"].LLM.asked
    assert [draw.seed for _, draw in asked] == [1, 2, 3, 4]
    for request, draw in asked:
        length = len(tokenizer(request)["input_ids"])
        assert (draw.top_k, draw.max_tokens, draw.min_tokens) == (50, 20 - length, max(0, 8 - length))


@pytest.mark.parametrize("unfit_vllm", INSTALLATIONS, indirect=True)
def test_transformers_is_the_fallback_with_the_same_sampling_and_one_warning(
    folder: Path, unfit_vllm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dmp_core"):
        lm = open_vllm(settings(folder, eta_cutoff=0.01), "cpu")
    [notice] = [record.getMessage() for record in caplog.records]
    assert unfit_vllm in notice
    assert "transformers writes the captions" in notice
    assert lm.name == f"transformers:{folder.name}"
    assert lm.facts["instead_of"].startswith(f"vllm:{folder}: ")
    assert unfit_vllm in lm.facts["instead_of"]
    own = TransformersPrompts(
        model=str(folder), chat=False, eta_cutoff=0.01, min_new_tokens=3, max_new_tokens=12, dtype="float32"
    )
    expected = TransformersGenerator(own, "cpu").generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4])
    assert lm.generate(KEYWORDS, TEMPLATE, [1, 2, 3, 4]) == expected


@pytest.mark.parametrize("unfit_vllm", INSTALLATIONS, indirect=True)
def test_there_is_no_fallback_if_it_is_off(folder: Path, unfit_vllm: str) -> None:
    with pytest.raises(InputError) as caught:
        open_vllm(settings(folder, fallback=False), "cpu")
    assert unfit_vllm in str(caught.value)
    assert "prompts.generator.fallback=true" in str(caught.value)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_transformers_is_the_fallback_where_vllm_is_not_installed(folder: Path) -> None:
    assert open_vllm(settings(folder), "cpu").facts["instead_of"] == f"vllm:{folder}: vLLM is not installed"
    with pytest.raises(InputError, match=r"vLLM is not installed; install a vLLM"):
        open_vllm(settings(folder, fallback=False), "cpu")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompts\.generator\.model.*nowhere"):
        open_vllm(settings(tmp_path / "nowhere"), "cpu")


# -------------------------------------------------------------------------------------- real vLLM
needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed: it needs an environment of its own (docs/prompts.md)"
)


def greedy(folder: Path, tokens: int) -> list[str]:
    """The likeliest tokens by transformers, one request at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for keyword in KEYWORDS:
        ids = tokenizer(f"describe a photo of a {keyword}", return_tensors="pt")["input_ids"]
        out = model.generate(ids, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens)
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def assert_seeded(lm: CaptionGenerator) -> None:
    """Texts follow from request and seed, whatever else is in the batch."""
    seeds = [1, 2, 3, 2**62 + 5]
    together = lm.generate(KEYWORDS, TEMPLATE, seeds)
    assert together == lm.generate(KEYWORDS, TEMPLATE, seeds)
    alone = [lm.generate([keyword], TEMPLATE, [seed])[0] for keyword, seed in zip(KEYWORDS, seeds, strict=True)]
    assert together == alone
    assert len(set(lm.generate(["bedroom"] * 8, TEMPLATE, list(range(8))))) > 4


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB; the default is a share of the whole machine's


@needs_vllm
@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_the_engine_writes_seeded_captions_with_bloom(folder: Path) -> None:
    """The published model's architecture, tiny, in a real engine: its likeliest tokens are those of transformers."""
    import vllm

    lm = open_vllm(settings(folder), "cpu")
    assert isinstance(lm, VLLMGenerator)
    assert lm.name == f"vllm:{folder}"
    assert lm.facts == {"vllm": vllm.__version__, "not_applied": ["eta_cutoff"]}
    assert_seeded(lm)
    lm.settings = settings(folder, temperature=1e-6, min_new_tokens=8, max_new_tokens=8)
    assert [text.strip() for text in lm.generate(KEYWORDS, TEMPLATE, [0] * 4)] == greedy(folder, 8)


@needs_vllm
@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_an_engine_that_cannot_start_is_one_error(folder: Path) -> None:
    with pytest.raises(InputError, match=r"vLLM cannot start .*max_model_len"):
        open_vllm(settings(folder, max_model_len=100_000), "cpu")


@needs_vllm
@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_vllm_s_server_is_used_through_its_address(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # What `vllm serve` runs; that command itself is missing from some builds for CPUs.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--enforce-eager"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "64"]
    log = tmp_path / "log"
    with log.open("w") as stream, subprocess.Popen([*command, *options], stdout=stream, stderr=stream) as running:
        try:
            while not listening(port):
                assert running.poll() is None, log.read_text()
                time.sleep(1)
            lm = open_vllm(settings(folder, server_url=f"http://127.0.0.1:{port}"))
            assert isinstance(lm, ServerGenerator)
            assert lm.facts["owned_by"] == "vllm"
            assert_seeded(lm)
            with pytest.raises(InputError, match=r"and not 'bigscience/bloomz-7b1'"):
                open_vllm(settings(folder, model="bigscience/bloomz-7b1", server_url=f"http://127.0.0.1:{port}"))
        finally:
            running.terminate()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
