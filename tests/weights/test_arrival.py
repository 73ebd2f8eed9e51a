"""Weights that arrive: what a hostile server sends is refused or resumed, by name, and nothing false is trusted."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.labelers import omnidata
from dmp_core.labelers.pienet import PIENet
from dmp_core.stages import plan
from dmp_core.stages.opening import open_model, problems_of
from dmp_core.stages.preflight import check_models
from dmp_core.weights import download, registry
from dmp_core.weights.download import pull
from dmp_core.weights.opening import open_diffusers, open_transformers
from dmp_core.weights.registry import LOCK, Model, ModelFile, check
from tests.training.tiny import write_base
from tests.weights.hostile_server import Answer, HostileServer, Request, drip, reset, short, status, whole

BODY = bytes(range(256)) * 1200
OTHER = b"y" + BODY[1:]
PAGE = b"\n<!DOCTYPE html><html><title>Just a moment...</title></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
COMMIT = "0123456789abcdef" * 2 + "01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: threading.Event().wait(min(seconds, 0.02)))
    server = HostileServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def lone(server: HostileServer, *answers: Answer, stated: bytes | None = None, mirrors: int = 0) -> Model:
    """A model of one file at `/a`, with mirrors at `/b` …; stated: its published size and digest are of these bytes."""
    server.script["/a"] = list(answers)
    pinned = {} if stated is None else {"bytes": len(stated), "sha256": sha256(stated)}
    return Model(
        id="lone", stages=["labels"], page=f"{server.url}/page", licence="MIT", terms="free", gated=False,
        approximate_gb=len(BODY) / 1e9, vram_gb=1,
        files=[ModelFile(path="lone.ckpt", url=f"{server.url}/a",
                         mirrors=[f"{server.url}/{'bcd'[n]}" for n in range(mirrors)], **pinned)],
    )  # fmt: skip


def assert_nothing_is_trusted(root: Path) -> None:
    assert not (root / "lone/lone.ckpt").exists()
    assert not (root / LOCK).exists()


# ------------------------------------------------------------------------------ what is refused
REFUSED: dict[str, tuple[Answer, str]] = {
    "202 and nothing": (status(202, x_amzn_waf_action="challenge"), "answer 202 Accepted, 0 bytes"),
    "202 and a page": (status(202, PAGE, Content_Type="text/html"), "answer 202 Accepted, .* of text/html"),
    "202 and all bytes": (status(202, BODY), "answer 202 Accepted"),
    "203": (status(203, BODY), "answer 203"),
    "204": (status(204), "answer 204"),
    "200 and nothing": (status(200), "answer 200 OK, 0 bytes"),
    "a page": (status(200, PAGE, Content_Type="text/html; charset=utf-8"), "200 OK, .* bytes of text/html"),
    "a page of the right size": (status(200, PAGE.ljust(len(BODY)), Content_Type="text/html"), "text/html"),
    "a page that says it is binary": (status(200, PAGE.ljust(len(BODY))), "it is a web page"),
    "a message": (status(200, b'{"message": "later"}', Content_Type="application/json"), "application/json"),
    "a pointer": (status(200, LFS), "not the file"),
    "far too short": (whole(BODY[:1000]), "1000 bytes, expected about 307200"),
    "far too long": (whole(BODY * 9), "2764800 bytes, expected about 307200"),
    "416 at once": (status(416), "refused .416"),
    "a teapot": (status(418), "refused .418"),
}


@pytest.mark.parametrize("stated", [None, BODY], ids=["free", "pinned"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_file_is_refused_by_its_name(
    case: str, stated: bytes | None, server: HostileServer, root: Path
) -> None:
    answer, said = REFUSED[case]
    with pytest.raises(InputError, match=r"^lone\.ckpt: ") as caught:
        pull(lone(server, answer, stated=stated))
    if stated is None:
        assert re.search(said, str(caught.value)), str(caught.value)
    assert_nothing_is_trusted(root)
    assert not list(root.rglob("*.part*"))
    server.script["/a"] = [whole(BODY)]
    assert pull(lone(server, whole(BODY), stated=stated)).read_bytes() == BODY


@pytest.mark.parametrize("data", [OTHER, BODY[:-1], BODY + b"x"])
def test_a_wrong_digest_or_size_is_refused(data: bytes, server: HostileServer, root: Path) -> None:
    with pytest.raises(InputError, match=r"^lone\.ckpt: what came is not the file .*expected 307200"):
        pull(lone(server, whole(data), stated=BODY))
    assert_nothing_is_trusted(root)


def test_the_hubs_own_digest_holds_where_the_registry_states_none(
    server: HostileServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large files it comes with the answer that redirects to where the bytes lie."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    linked = {"X_Linked_Etag": f'"{sha256(BODY)}"', "X_Linked_Size": str(len(BODY)), "Location": f"{server.url}/cdn"}
    server.script["/cdn"] = [whole(OTHER)]
    with pytest.raises(InputError, match=rf"lone\.ckpt: what came is not the file .*expected .*{sha256(BODY)}"):
        pull(lone(server, status(302, **linked)))
    assert_nothing_is_trusted(root)
    server.script["/cdn"] = [whole(BODY)]
    assert pull(lone(server, status(302, **linked))).read_bytes() == BODY


# ------------------------------------------------------------------------------ what is resumed
@pytest.mark.parametrize("broken", [short, reset], ids=["short", "reset"])
def test_a_broken_body_is_resumed_from_the_last_byte(
    broken: Callable[[bytes, int], Answer], server: HostileServer, root: Path
) -> None:
    model = lone(server, broken(BODY, 100_000), broken(BODY, 100_000), whole(BODY))
    assert pull(model).read_bytes() == BODY
    ranges = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in server.asked if asked]
    assert [round(start, -4) for start in ranges] == [100_000, 200_000]
    assert json.loads((root / LOCK).read_text())["lone/lone.ckpt"]["sha256"] == sha256(BODY)


@pytest.mark.parametrize("broken", [short, reset], ids=["short", "reset"])
def test_a_server_that_never_sends_more_is_given_up_and_the_next_pull_resumes(
    broken: Callable[[bytes, int], Answer], server: HostileServer, root: Path
) -> None:
    with pytest.raises(InputError, match=r"^lone\.ckpt: .*/a: not fetched to its end, 100000 bytes so far .*resumes"):
        pull(lone(server, broken(BODY, 100_000), broken(BODY, 0)))
    assert_nothing_is_trusted(root)
    server.asked.clear()
    assert pull(lone(server, whole(BODY))).read_bytes() == BODY
    assert server.asked == [("/a", "bytes=100000-")]


def test_a_drip_is_given_up_and_kept(server: HostileServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"^lone\.ckpt: .*not fetched to its end, .* bytes in .* s\); run the same"):
        pull(lone(server, drip(BODY, 0.03)))
    assert len(server.asked) == 5
    assert_nothing_is_trusted(root)
    part = (root / "lone/lone.ckpt.part").read_bytes()
    assert part
    assert BODY.startswith(part)
    assert pull(lone(server, whole(BODY))).read_bytes() == BODY


def test_a_slow_but_steady_server_is_waited_for(server: HostileServer) -> None:
    assert pull(lone(server, drip(BODY, 0.01, 10_000))).read_bytes() == BODY
    assert len(server.asked) == 1


def part_of(root: Path, data: bytes, note: str | None = None) -> None:
    (root / "lone").mkdir(parents=True)
    (root / "lone/lone.ckpt.part").write_bytes(data)
    if note is not None:
        (root / "lone/lone.ckpt.part.from").write_text(note)


def test_416_with_all_bytes_here_is_the_end(server: HostileServer, root: Path) -> None:
    part_of(root, BODY)
    assert pull(lone(server, status(416, Content_Range=f"bytes */{len(BODY)}"))).read_bytes() == BODY
    assert len(server.asked) == 1


def test_416_for_another_length_starts_again(server: HostileServer, root: Path) -> None:
    part_of(root, BODY + b"more")
    assert pull(lone(server, status(416), whole(BODY))).read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [f"bytes={len(BODY) + 4}-", None]


def test_two_versions_are_not_mixed(server: HostileServer, root: Path) -> None:
    """The server has another file since; `If-Range` makes it send all of it."""

    def changed(request: Request) -> None:
        assert request.headers["If-Range"] == '"old"'
        request.head(200, len(OTHER), Etag='"new"')
        request.wfile.write(OTHER)

    part_of(root, BODY[:5000], f'{server.url}/a\n"old"\n')
    assert pull(lone(server, changed)).read_bytes() == OTHER


def test_a_part_of_another_place_is_not_continued_unless_a_digest_tells(server: HostileServer, root: Path) -> None:
    part_of(root, BODY[:5000], "http://elsewhere/a\n\n")
    assert pull(lone(server, whole(OTHER))).read_bytes() == OTHER
    assert server.asked == [("/a", None)]


def test_a_range_that_was_not_asked_for_is_not_appended(server: HostileServer, root: Path) -> None:
    part_of(root, BODY[:5000])
    wrong = status(206, BODY[100:], Content_Range=f"bytes 100-{len(BODY) - 1}/{len(BODY)}")
    assert pull(lone(server, wrong, whole(BODY))).read_bytes() == BODY


# -------------------------------------------------------------------------------- second places
@pytest.mark.parametrize("first", ["202 and nothing", "a page", "far too short", "416 at once"])
def test_a_second_place_is_asked_where_the_first_has_not_the_file(
    first: str, server: HostileServer, root: Path
) -> None:
    model = lone(server, REFUSED[first][0], mirrors=2)
    server.script |= {"/b": [status(404)], "/c": [whole(BODY)]}
    assert pull(model).read_bytes() == BODY
    assert [path for path, _ in server.asked][-2:] == ["/b", "/c"]


def test_all_places_are_named_when_none_has_it(server: HostileServer, root: Path) -> None:
    model = lone(server, whole(OTHER), stated=BODY, mirrors=1)
    server.script["/b"] = [status(202)]
    with pytest.raises(InputError, match=r"lone\.ckpt: .*/a\).*; lone\.ckpt: .*202.*/b\)"):
        pull(model)
    assert_nothing_is_trusted(root)


def test_pienet_has_a_second_place_and_no_licence() -> None:
    (file,) = registry.get("pienet").files
    assert "35467808" in str(file.url)
    assert all("35467808" in mirror for mirror in file.mirrors)
    assert file.mirrors
    assert registry.get("pienet").licence == "none stated"


# ------------------------------------------------------------------- files that came another way
@pytest.mark.parametrize("false", [b"", PAGE, LFS, b'{"error": 1}'], ids=["empty", "page", "pointer", "message"])
def test_a_false_file_by_hand_or_of_an_older_version_is_never_trusted(
    false: bytes, server: HostileServer, root: Path
) -> None:
    model = lone(server, whole(BODY))
    path = root / "lone/lone.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(false)
    stamp = {"sha256": sha256(false), "bytes": len(false), "mtime_ns": path.stat().st_mtime_ns}
    (root / LOCK).write_text(json.dumps({"lone/lone.ckpt": stamp}))
    assert [problem.file.path for problem in check(model, read=False)] == ["lone.ckpt"]
    with pytest.raises(InputError, match=r"labels: .*lone\.ckpt: .*run: dmp models pull lone"):
        registry.require(model, "labels")
    assert "lone/lone.ckpt" not in json.loads((root / LOCK).read_text())
    assert pull(model).read_bytes() == BODY
    assert check(model) == []


def test_a_false_file_in_a_mirror_is_refused(server: HostileServer, root: Path, tmp_path: Path) -> None:
    (tmp_path / "lone.ckpt").write_bytes(PAGE)
    with pytest.raises(InputError, match=r"^lone\.ckpt: what came is not the file .it is a web page"):
        pull(lone(server, whole(BODY)), str(tmp_path))
    assert_nothing_is_trusted(root)


# ------------------------------------------------------------------------------- opened once
def hub_model(network: str, folder: Path, stage: str = "train") -> Model:
    files = [ModelFile(path=str(path.relative_to(folder))) for path in sorted(folder.rglob("*.*")) if path.is_file()]
    return Model(
        id="tiny", stages=[stage], hub="some/tiny", revision=COMMIT, licence="MIT", terms="free", gated=False,
        approximate_gb=0.001, vram_gb=1, network=network, files=files,
    )  # fmt: skip


def spoil(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Change the tensors of a file."""

    def apply(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return apply


UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
SPOILT: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a U-Net without a layer": (UNET, spoil(lambda tensors: tensors.pop("conv_in.bias"))),
    "a U-Net of another shape": (UNET, spoil(lambda tensors: tensors.update({"conv_in.bias": torch.zeros(3)}))),
    "a text encoder without a layer": (TEXT, spoil(lambda tensors: tensors.pop(sorted(tensors)[0]))),
    "a truncated U-Net": (UNET, lambda path: path.write_bytes(path.read_bytes()[:-50])),
    "a truncated text encoder": (TEXT, lambda path: path.write_bytes(path.read_bytes()[:-50])),
    "bytes for weights": (UNET, lambda path: path.write_bytes(BODY)),
    "half a config": ("unet/config.json", lambda path: path.write_text('{"_class_name": ')),
    "half a vocabulary": ("tokenizer/tokenizer.json", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "no index": ("model_index.json", lambda path: path.write_text("{}")),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_its_networks_do_not_take_is_refused_after_the_pull(
    case: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = write_base(tmp_path / "mirror" / "tiny")
    model = hub_model("diffusers", mirror)
    part, change = SPOILT[case]
    change(mirror / part)
    with pytest.raises(InputError, match=r"^tiny: what came cannot be used: .*tiny-01234567.*--from"):
        pull(model, str(tmp_path / "mirror"), opens=open_model)
    assert not (root / LOCK).exists()
    assert not [path for path in (root / model.folder).rglob("*") if path.is_file()]


def test_a_right_folder_is_opened_and_trusted(tmp_path: Path, root: Path) -> None:
    model = hub_model("diffusers", write_base(tmp_path / "mirror" / "tiny"))
    pull(model, str(tmp_path / "mirror"), opens=open_model)
    assert len(json.loads((root / LOCK).read_text())) == len(model.files)
    assert problems_of(model, full=True) == []


def test_the_names_of_old_checkpoints_are_known(tmp_path: Path) -> None:
    """Published autoencoders have other names of attention, text encoders a prefix and a buffer that was dropped."""
    folder = write_base(tmp_path / "base")
    vae, text = folder / "vae/diffusion_pytorch_model.safetensors", folder / TEXT
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(vae)
    for new, former in old.items():
        tensors = {name.replace(new, former): tensor for name, tensor in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, vae)
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(text).items()}
    save_file(prefixed | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, text, {"format": "pt"})
    open_diffusers(folder)


def test_files_by_hand_are_opened_before_they_are_trusted(tmp_path: Path, root: Path) -> None:
    mirror = write_base(tmp_path / "mirror")
    model = hub_model("diffusers", mirror)
    (root / model.folder).parent.mkdir(parents=True)
    mirror.rename(root / model.folder)
    config = root / model.folder / "vae/config.json"
    right = config.read_text()
    config.write_text(right.replace('"latent_channels": 4', '"latent_channels": 8'))
    (problem,) = problems_of(model)
    assert "tiny-01234567/vae: weights and config.json do not match" in problem
    assert not (root / LOCK).exists()
    config.write_text(right)
    assert problems_of(model) == []


def test_the_preset_normals_load_from_the_published_layout(tmp_path: Path, root: Path) -> None:
    """PyTorch Lightning's: names below `state_dict` that begin with `model.`, 384 pixels, images as they are."""
    with torch.device("meta"):
        names = omnidata.network("v2").state_dict()
    state = {f"model.{name}": torch.zeros(()).expand(tensor.shape) for name, tensor in names.items()}
    path = tmp_path / "omnidata_dpt_normal_v2.ckpt"
    torch.save({"epoch": 1, "state_dict": state}, path)
    model = registry.get("omnidata-normal-v2")
    assert model.network == "omnidata"
    small = model.model_copy(update={"files": [ModelFile(path=path.name)], "approximate_gb": path.stat().st_size / 1e9})
    assert pull(small, str(tmp_path), opens=open_model).name == path.name
    settings = load_config("paper").labels["normal"]
    assert (settings.weights, settings.options) == ("omnidata-normal-v2", {"size": 384})
    variant = omnidata.VARIANTS["v2"]
    assert (variant.file, variant.mean, variant.std, variant.rectified) == (path.name, 0.0, 1.0, True)
    state.pop("model.scratch.output_conv.4.bias")
    torch.save({"state_dict": state}, path)
    shutil.rmtree(root)
    with pytest.raises(InputError, match=r"cannot be used: .*omnidata_dpt_normal_v2\.ckpt: .*1 missing"):
        pull(small, str(tmp_path), opens=open_model)


def test_a_labelers_file_of_another_network_is_refused_before_the_run(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = PIENet(width=8).state_dict()
    torch.save({"model": {name: torch.zeros(()).expand(t.shape) for name, t in names.items()}}, tmp_path / "pie.t7")
    labels = f"labels.albedo={{kind: pienet, weights: '{tmp_path / 'pie.t7'}'}}"
    nodes = plan(load_config("smoke", None, [labels, "modalities=[albedo]"]))
    with pytest.raises(InputError, match=r"^labels\.albedo\.weights: .*pie\.t7: weights of another network"):
        check_models(nodes)


@pytest.mark.parametrize("option", ["{size: 500}", "{sise: 384}"])
def test_a_labelers_wrong_option_is_told_before_the_run(option: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        names = omnidata.network("v2").state_dict()
    torch.save({f"model.{name}": torch.zeros(()).expand(t.shape) for name, t in names.items()}, tmp_path / "v2.ckpt")
    labels = f"labels.normal={{kind: omnidata, weights: '{tmp_path / 'v2.ckpt'}', options: {option}}}"
    nodes = plan(load_config("smoke", None, [labels, "modalities=[normal]"]))
    with pytest.raises(InputError, match=r"labels\.normal.*(500|sise)"):
        check_models(nodes)


def test_a_broken_base_ends_the_run_before_any_work(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    SPOILT["a U-Net without a layer"][1](base / UNET)
    config = load_config("smoke", None, [f"base.model={base}", "adapters={}", "modalities=[normal]"])
    said = rf"^base\.model: {base}/unet: weights and config\.json do not match: 1 missing"
    with pytest.raises(InputError, match=said):
        check_models(plan(config))


def test_a_language_model_is_opened(tmp_path: Path) -> None:
    from benchmarks.full_size import bloom

    (tmp_path / "bloom").mkdir()
    folder = bloom(tmp_path / "bloom")
    open_transformers(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="bloom: cannot be opened"):
        open_transformers(folder)


def test_every_model_of_the_registry_says_what_opens_it() -> None:
    assert all(model.network for model in registry.registry())
