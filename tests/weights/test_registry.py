"""Pulling and checking weights, against a local server that knows ranges and can hang up in the middle."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants, file_download
from pydantic import ValidationError
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.cli.running import _in_turn, run_nodes
from dmp_core.config import load_config, preset_names
from dmp_core.errors import InputError
from dmp_core.stages import plan
from dmp_core.stages.preflight import lacks_gpu, models_of
from dmp_core.weights import registry
from dmp_core.weights.download import pull
from dmp_core.weights.load import choose_device
from dmp_core.weights.registry import LOCK, Model, ModelFile, Registry, check
from dmp_core.weights.resolve import identity, registered, resolve_folder, resolve_model

WEIGHTS = bytes(range(256)) * 4096  # a megabyte
CONFIG = b'{"model_type": "tiny"}'
COMMIT = "0123456789abcdef" * 2 + "01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server:
    """Serves `files` by path, or says where they `moved`.

    cut: after how many bytes of a body the connection ends, once per entry.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.cut: list[int] = []
        self.asked: list[tuple[str, str | None, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                range_, token = self.headers.get("Range"), self.headers.get("Authorization")
                server.asked.append((self.path, range_, token))
                if place := server.moved.get(self.path):
                    self.send_response(302)
                    self.send_header("Location", place)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = server.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int(range_.removeprefix("bytes=").rstrip("-")) if range_ else 0
                if start >= len(body) and range_:
                    self.send_error(416)
                    return
                self.send_response(206 if range_ else 200)
                self.send_header("Content-Length", str(len(body) - start))
                if range_:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                if server.cut:
                    self.wfile.write(body[start : start + server.cut.pop(0)])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                else:
                    self.wfile.write(body[start:])

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)  # of HF_ENDPOINT, which is read at import
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, server: Server) -> dict[str, Model]:
    """A registry of two: `tiny` on the hub, its weights' digest stated; `lone`, one file whose digest is not."""
    tiny = Model(
        id="tiny",
        stages=["images"],
        hub="some/tiny",
        revision=COMMIT,
        licence="MIT",
        terms="free",
        gated=False,
        approximate_gb=0.001,
        vram_gb=1,
        files=[
            ModelFile(path="unet/model.safetensors", bytes=len(WEIGHTS), sha256=sha256(WEIGHTS)),
            ModelFile(path="config.json"),
        ],
    )
    lone = Model(
        id="lone",
        stages=["labels"],
        page=f"{server.url}/page",
        licence="CC BY-NC 4.0",
        terms="no commercial use",
        gated=False,
        approximate_gb=0.001,
        vram_gb=1,
        files=[ModelFile(path="lone.ckpt", url=f"{server.url}/files/7")],
    )
    server.files |= {
        f"/some/tiny/resolve/{COMMIT}/unet/model.safetensors": WEIGHTS,
        f"/some/tiny/resolve/{COMMIT}/config.json": CONFIG,
        "/files/7": WEIGHTS,
    }
    monkeypatch.setattr(registry, "registry", lambda: [tiny, lone])
    return {"tiny": tiny, "lone": lone}


def faults(model: Model, **options: bool) -> list[str]:
    return [f"{problem.file.path} {problem.fault}" for problem in check(model, **options)]


# ------------------------------------------------------------------------------------ pulling
def test_pull_fetches_all_files_and_a_second_pull_nothing(known: dict[str, Model], server: Server) -> None:
    told: list[tuple[int, int, str]] = []
    place = pull(known["tiny"], progress=lambda done, total, message="": told.append((done, total, message)))
    assert (place / "unet/model.safetensors").read_bytes() == WEIGHTS
    assert (place / "config.json").read_bytes() == CONFIG
    assert faults(known["tiny"]) == []
    assert [name for *_, name in told][:: len(told) - 1] == ["unet/model.safetensors", "config.json"]
    server.asked.clear()
    assert pull(known["tiny"]) == place
    assert server.asked == []


def test_a_model_of_one_file_is_that_file(known: dict[str, Model], folder: Path) -> None:
    assert pull(known["lone"]) == folder / "lone" / "lone.ckpt"


def test_the_token_goes_to_the_hub_alone(
    known: dict[str, Model], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(known["tiny"])
    assert {token for *_, token in server.asked} == {"Bearer secret"}
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    server.asked.clear()
    pull(known["lone"])
    assert {token for *_, token in server.asked} == {None}


def test_the_token_does_not_follow_a_redirect_to_another_host(
    known: dict[str, Model], server: Server, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = Server()
    store.files, server.files = server.files, {}
    server.moved = {path: f"{store.url}{path}" for path in store.files}
    store.cut = [300_000]
    place = pull(known["tiny"])
    store.close()
    assert (place / "unet/model.safetensors").read_bytes() == WEIGHTS
    assert {token for *_, token in server.asked} == {"Bearer secret"}
    assert {token for *_, token in store.asked} == {None}
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


def test_a_token_that_no_request_can_carry_is_not_repeated(
    known: dict[str, Model], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "pla€nted")
    with pytest.raises(InputError, match=r"unet/model\.safetensors: the request cannot be sent; is HF_TOKEN") as caught:
        pull(known["tiny"])
    assert "nted" not in str(caught.value)
    assert server.asked == []


def test_a_cut_connection_is_taken_up_where_it_ended(known: dict[str, Model], server: Server) -> None:
    server.cut = [300_000, 400_000]
    assert pull(known["lone"]).read_bytes() == WEIGHTS
    assert [range_ for _, range_, _ in server.asked] == [None, "bytes=300000-", "bytes=700000-"]


def test_a_dead_server_leaves_the_part_for_the_next_call(known: dict[str, Model], server: Server, folder: Path) -> None:
    server.cut = [500_000, *[0] * 12]
    with pytest.raises(
        InputError, match=r"files/7: not fetched to its end, 500000 bytes so far .*run the same command"
    ):
        pull(known["lone"])
    assert not (folder / "lone/lone.ckpt").exists()
    server.asked.clear()
    server.cut.clear()
    assert pull(known["lone"]).read_bytes() == WEIGHTS
    assert [range_ for _, range_, _ in server.asked] == ["bytes=500000-"]


def test_a_server_without_ranges_is_read_from_the_start(
    known: dict[str, Model], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(handler: BaseHTTPRequestHandler) -> None:
        server.asked.append((handler.path, handler.headers.get("Range"), None))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(WEIGHTS)))
        handler.end_headers()
        handler.wfile.write(WEIGHTS[: server.cut[0]] if server.cut else WEIGHTS)
        handler.close_connection = bool(server.cut and server.cut.pop(0))

    monkeypatch.setattr(server.http.RequestHandlerClass, "do_GET", whole)
    server.cut = [500_000]
    seen: list[str] = []
    path = pull(known["lone"], progress=lambda done, total, message="": seen.append(f"{done} of {total} MB"))
    assert path.read_bytes() == WEIGHTS
    assert [range_ for _, range_, _ in server.asked] == [None, "bytes=500000-"]
    assert seen[-1] == "1 of 1 MB"


def test_a_source_may_be_wrong_or_out_of_reach(
    known: dict[str, Model], server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for mirror, reason in [
        ("http://127.0.0.1:9", "refused"),
        ("http://127.0.0.1:port", "port"),
        ("nothing://here", "Protocol not known: nothing; give --from a folder or a URL"),
        (f"http://me:planted@127.0.0.1:{server.http.server_port}", "password"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            pull(known["lone"], mirror)
        assert "planted" not in str(caught.value)
    monkeypatch.setattr(server.http.RequestHandlerClass, "do_GET", lambda handler: handler.send_error(503))
    with pytest.raises(InputError, match=r"not fetched to its end, 0 bytes so far \(503 .*run the same command again"):
        pull(known["lone"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"offline mode is enabled.* unset the `HF_HUB_OFFLINE`"):
        pull(known["lone"])
    assert capfd.readouterr() == ("", "")


def test_two_do_not_write_into_one_part(known: dict[str, Model], folder: Path) -> None:
    (folder / "lone").mkdir(parents=True)
    with (folder / "lone/lone.ckpt.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"lone\.ckpt\.part: another process is fetching this file"):
            pull(known["lone"])


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(known: dict[str, Model], folder: Path) -> None:
    (folder / "lone").mkdir(parents=True)
    (folder / "lone/lone.ckpt.part").write_bytes(WEIGHTS + b"more")
    assert pull(known["lone"]).read_bytes() == WEIGHTS


@pytest.mark.parametrize("data", [WEIGHTS[:-1] + b"x", WEIGHTS[:-1], WEIGHTS + b"x"])
def test_other_bytes_are_refused_and_not_kept(
    known: dict[str, Model], server: Server, folder: Path, data: bytes
) -> None:
    server.files[f"/some/tiny/resolve/{COMMIT}/unet/model.safetensors"] = data
    with pytest.raises(InputError, match=r"model\.safetensors: (what came is not the file|not fetched)") as caught:
        pull(known["tiny"])
    assert not (folder / known["tiny"].folder / "unet/model.safetensors").exists()
    assert "tiny" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "mend"), [(401, "accept the terms at .*some/tiny and set HF_TOKEN"), (404, "not found")]
)
def test_what_the_hub_refuses_is_told(
    known: dict[str, Model], server: Server, monkeypatch: pytest.MonkeyPatch, code: int, mend: str
) -> None:
    monkeypatch.setattr(server.http.RequestHandlerClass, "do_GET", lambda handler: handler.send_error(code))
    with pytest.raises(InputError, match=mend):
        pull(known["tiny"])


def test_a_model_that_people_fetch_names_its_page(known: dict[str, Model], tmp_path: Path) -> None:
    model = known["lone"].model_copy(update={"manual": True})
    with pytest.raises(
        InputError, match=r"by hand: save lone\.ckpt from .*/page, then run: dmp models pull lone --from"
    ):
        pull(model)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/lone.ckpt").write_bytes(WEIGHTS)
    assert pull(model, str(tmp_path / "downloads")).read_bytes() == WEIGHTS


@pytest.mark.parametrize("layout", ["tiny-01234567", "tiny", "some/tiny"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_mirror_may_lie_as_the_models_directory_or_by_id(
    known: dict[str, Model], server: Server, tmp_path: Path, layout: str, remote: bool
) -> None:
    files = {"unet/model.safetensors": WEIGHTS, "config.json": CONFIG}
    server.files = {f"/mirror/{layout}/{name}": data for name, data in files.items()} if remote else {}
    for name, data in files.items():
        path = tmp_path / "mirror" / layout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pull(known["tiny"], f"{server.url}/mirror" if remote else str(tmp_path / "mirror"))
    assert faults(known["tiny"], full=True) == []
    assert bool(server.asked) == remote
    assert {token for *_, token in server.asked} <= {None, "Bearer secret"}


def test_a_mirror_without_the_file_says_where_it_looked(known: dict[str, Model], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"unet/model\.safetensors: not found at .*tiny-01234567/unet.* or .*some/tiny"
    ):
        pull(known["tiny"], str(tmp_path))


def test_a_full_disk_is_told_before_a_byte_is_fetched(known: dict[str, Model], server: Server) -> None:
    with pytest.raises(InputError, match=r"tiny needs 10000000\.0 GB"):
        pull(known["tiny"].model_copy(update={"approximate_gb": 1e7}))
    assert server.asked == []


# ----------------------------------------------------------------------------------- checking
SPOIL: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "truncated": lambda path: path.write_bytes(WEIGHTS[:-9]),
    "tampered": lambda path: path.write_bytes(b"y" + WEIGHTS[1:]),
}


@pytest.mark.parametrize("fault", SPOIL)
def test_check_tells_what_is_wrong_and_the_next_pull_mends_it(known: dict[str, Model], fault: str) -> None:
    model = known["tiny"]
    path = pull(model) / "unet/model.safetensors"
    SPOIL[fault](path)
    assert faults(model) == [f"unet/model.safetensors {fault}"]
    with pytest.raises(InputError, match=r"base\.model: .*unet/model\.safetensors: .*; run: dmp models pull tiny"):
        resolve_model("tiny", "base.model")
    pull(model)
    assert faults(model) == []


def test_the_first_copy_is_locked_and_later_ones_are_held_to_it(
    known: dict[str, Model], server: Server, folder: Path
) -> None:
    model = known["lone"]
    path = pull(model)
    assert json.loads((folder / LOCK).read_text())["lone/lone.ckpt"]["sha256"] == sha256(WEIGHTS)
    path.write_bytes(b"y" + WEIGHTS[1:])
    assert faults(model) == ["lone.ckpt tampered"]
    server.files["/files/7"] = b"y" + WEIGHTS[1:]
    with pytest.raises(
        InputError, match=rf"lone\.ckpt: what came is not the file .*delete 'lone/lone.ckpt' from {LOCK}"
    ):
        pull(model)


def test_a_file_that_was_put_there_by_hand_is_locked_at_its_first_check(known: dict[str, Model], folder: Path) -> None:
    path = folder / "lone/lone.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    assert faults(known["lone"]) == []
    path.write_bytes(WEIGHTS[:-1])
    assert faults(known["lone"]) == ["lone.ckpt tampered"]


def test_files_are_read_again_only_when_they_changed_or_on_demand(known: dict[str, Model]) -> None:
    """A change that keeps size and time is seen by a full check alone."""
    path = pull(known["lone"])
    before = path.stat()
    path.write_bytes(b"y" + WEIGHTS[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert faults(known["lone"]) == []
    assert faults(known["lone"], full=True) == ["lone.ckpt tampered"]


def test_a_broken_lock_is_refused(known: dict[str, Model], folder: Path) -> None:
    pull(known["lone"])
    (folder / LOCK).write_text('{"lone/lone.ckpt": {"sha256": "x"}}')
    with pytest.raises(InputError, match=rf"{LOCK}: not a valid lock file"):
        check(known["lone"])


# ---------------------------------------------------------------------------------- resolving
def test_ids_and_hub_ids_lead_to_the_pulled_copy_without_a_network(known: dict[str, Model], server: Server) -> None:
    place = pull(known["tiny"])
    server.close()
    for reference in ("tiny", "some/tiny"):
        located = resolve_model(reference, "base.model")
        assert (located.place, located.options) == (str(place), {"local_files_only": True})
        assert resolve_folder(reference, "priors") == place


def test_a_hub_id_that_is_not_here_is_left_to_the_hub_at_its_pinned_revision(known: dict[str, Model]) -> None:
    located = resolve_model("some/tiny", "base.model")
    assert (located.place, located.options) == ("some/tiny", {"revision": COMMIT})
    assert resolve_folder("some/tiny", "priors") is None
    pull(known["tiny"])
    assert resolve_model("some/tiny", "base.model", revision="another").options == {"revision": "another"}
    assert resolve_model("other/model", "base.model").options == {"revision": None}


def test_a_local_folder_of_that_name_is_meant_for_itself(
    known: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some/tiny").mkdir(parents=True)
    assert resolve_model("some/tiny", "base.model").place == str(tmp_path / "some/tiny")
    assert registered("some/tiny") is None


def test_missing_weights_are_told_with_their_command(known: dict[str, Model]) -> None:
    with pytest.raises(InputError, match=r"labels\.depth\.weights: .*lone\.ckpt: missing; run: dmp models pull lone"):
        resolve_model("lone", "labels.depth.weights")
    with pytest.raises(InputError, match=r"base\.model: \./nowhere: no such folder or file"):
        resolve_model("./nowhere", "base.model")


def test_identity_needs_no_files_where_the_bytes_are_known(known: dict[str, Model], folder: Path) -> None:
    before = identity("tiny", None, "priors")
    pull(known["tiny"])
    assert identity("tiny", None, "priors") == identity("some/tiny", None, "priors") == before
    assert identity("some/tiny", "another", "priors") == "some/tiny@another"
    unknown = identity("lone", None, "priors")
    pull(known["lone"])
    locked = identity("lone", None, "priors")
    assert locked != unknown
    (folder / "lone/lone.ckpt").unlink()
    assert identity("lone", None, "priors") == locked


# ------------------------------------------------------------------------------- the real file
REAL = registry.registry()


def test_every_model_that_a_preset_names_is_in_the_registry() -> None:
    for preset in preset_names():
        _, others = models_of(plan(load_config(preset)))
        assert others == [], preset


def test_the_registry_is_well_formed() -> None:
    """Beyond what its models demand of themselves."""
    for model in REAL:
        weights = [file for file in model.files if not file.path.endswith((".json", ".txt"))]
        assert weights, model.id
        assert model.terms
        assert abs(sum(file.bytes or 0 for file in model.files)) / 1e9 < model.approximate_gb * 1.05, model.id
        if model.hub:
            assert not any(file.path.endswith((".bin", ".msgpack")) for file in model.files)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [{"path": "a.bin", "sha256": "abc"}]},
        {"files": [{"path": "a.bin", "bytes": 0}]},
        {"files": [{"path": "../a.bin"}]},
        {"files": [{"path": "/a.bin"}]},
        {"files": [{"path": "a.bin"}, {"path": "a.bin"}]},
        {"files": []},
        {"revision": "main"},
        {"hub": None},
        {"hub": None, "page": "https://somewhere"},
        {"colour": "red"},
    ],
)
def test_a_malformed_entry_is_refused(changes: dict[str, object]) -> None:
    entry = REAL[0].model_dump() | changes
    with pytest.raises(ValidationError):
        Registry.model_validate({"models": [entry]})
    with pytest.raises(ValidationError, match="listed twice"):
        Registry.model_validate({"models": [REAL[0], REAL[0]]})


# -------------------------------------------------------------------------------- command line
def dmp(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    assert done.exception is None or isinstance(done.exception, SystemExit | InputError), done.exception
    return done.exit_code, done.output + (str(done.exception) if isinstance(done.exception, InputError) else "")


def test_check_of_an_empty_machine_names_all_that_is_missing(folder: Path) -> None:
    code, text = dmp("models", "check", "--preset", "paper")
    assert code == 2
    known, _ = models_of(plan(load_config("paper")))
    assert set(known) == {
        *("bloomz-7b1", "stable-diffusion-v1-4", "omnidata-normal-v2", "zoedepth-nyu", "eva02-ade20k", "pienet")
    }
    for name in known:
        model = registry.get(name)
        assert f"{model.size / 1e9:.1f} GB, {model.licence}: {model.terms}" in text
        assert f"dmp models pull {name}" in text
        for file in model.files:
            assert f"{folder / model.folder / file.path}: missing" in text


def test_pull_and_check_from_the_command_line(known: dict[str, Model]) -> None:
    code, text = dmp("models", "pull")
    assert code != 0
    assert "name models" in text
    assert dmp("models", "pull", "tiny", "lone")[0] == 0
    code, text = dmp("models", "check", "tiny", "lone", "--full")
    assert (code, text.count("✓")) == (0, 2)
    assert [each["state"] for each in json.loads(dmp("models", "list", "--json")[1])] == ["ready", "ready"]
    code, text = dmp("models", "check", "nothing")
    assert "'nothing' is not in the registry; there are: tiny, lone" in text


def test_plan_of_the_paper_preset_tells_what_is_missing(tmp_path: Path) -> None:
    workspace = str(tmp_path / "workspace")
    code, text = dmp("plan", "-p", "paper", "-w", workspace)
    assert code == 0
    for name in ("bloomz-7b1", "stable-diffusion-v1-4", "zoedepth-nyu", "eva02-ade20k", "pienet"):
        assert f"run: dmp models pull {name}" in text
    assert "dmp models pull bloomz-7b1 stable-diffusion-v1-4 omnidata-normal-v2 zoedepth-nyu" in text
    assert "GPU: about 22 GB needed" in text
    assert "dmp run will refuse: runtime.device: bloomz-7b1, stable-diffusion-v1-4," in text
    assert "will refuse" not in dmp("plan", "-p", "paper", "-w", workspace, "--set", "runtime.device=cpu")[1]
    needs = json.loads(dmp("plan", "-p", "paper", "-w", workspace, "--json")[1])["preflight"]
    assert {model["id"]: model["fields"] for model in needs["models"]}["pienet"] == [
        "labels.albedo.weights",
        "labels.shading.weights",
    ]
    assert needs["gpu_hours"] > 1
    assert not (tmp_path / "models").exists()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_run_without_the_gpu_that_its_models_need_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    workspace = str(tmp_path / "w")
    for device in ("auto", "cuda"):
        code, text = dmp("run", "-p", "paper", "-w", workspace, "--set", f"runtime.device={device}")
        assert code != 0
        assert "stable-diffusion-v1-4" in text
        assert "set runtime.device=cpu" in text
        assert not Path(workspace).exists()
    # On the processor the next check is reached: the weights.
    code, text = dmp("run", "-p", "paper", "-w", workspace, "--set", "runtime.device=cpu")
    assert code != 0
    assert "dmp models pull" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused_for_small_models_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for stages without a network, e.g. rendered images."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options = ["-p", "smoke", "-w", str(tmp_path / "w"), "--set", "runtime.device=cuda"]
    refused = "runtime.device: no cuda device is found here; set runtime.device=auto, or cpu"
    code, text = dmp("run", *options)
    assert (code != 0, text.strip()) == (True, refused)
    assert not (tmp_path / "w").exists()
    assert f"dmp run will refuse: {refused}" in " ".join(dmp("plan", *options)[1].split())
    config = load_config("smoke", None, ["runtime.device=cuda"])
    assert lacks_gpu([node for node in plan(config) if node.stage in ("images", "labels")], config.runtime) is None
    assert lacks_gpu(plan(config), config.runtime) == refused
    with pytest.raises(InputError, match=refused):
        choose_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match=r"found here \(CUDA_VISIBLE_DEVICES=\);"):
        choose_device("cuda")


@pytest.mark.parametrize("written", [b"{}", b"", b"{"], ids=["alone", "truncated", "tampered"])
def test_a_half_fetched_text_to_image_model_stops_no_plan_and_no_pull(
    tmp_path: Path, folder: Path, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.get("stable-diffusion-v1-4")
    index = folder / model.folder / "model_index.json"
    index.parent.mkdir(parents=True)
    index.write_bytes(written)
    code, text = dmp("plan", "-p", "paper", "-w", str(tmp_path / "w"))
    assert code == 0
    assert "run: dmp models pull stable-diffusion-v1-4" in text
    code, text = dmp("models", "check", "--preset", "paper")
    assert code == 2
    assert f"{index.parent / 'scheduler/scheduler_config.json'}: missing" in text
    assert "dmp models pull pienet" in text
    fetched: list[str] = []
    monkeypatch.setattr("dmp_core.cli.models.fetch", lambda model, *_: fetched.append(model.id))
    assert dmp("models", "pull", "--preset", "paper")[0] == 0
    assert "stable-diffusion-v1-4" in fetched


def test_places_on_one_disk_share_its_space(tmp_path: Path) -> None:
    needs = json.loads(dmp("plan", "-p", "paper", "-w", str(tmp_path / "w"), "--json")[1])["preflight"]
    (disk,) = needs["disks"]  # workspace and models both lie below tmp_path
    assert disk["place"] == f"{tmp_path / 'w'} and {registry.models_dir()}"
    weights = sum(model["bytes"] for model in needs["models"])
    assert disk["needed"] > weights + 30e9


def test_the_preflight_sees_that_a_locked_file_was_cut_short(known: dict[str, Model], folder: Path) -> None:
    pull(known["lone"])
    path = folder / known["lone"].folder / known["lone"].files[0].path
    assert check(known["lone"], read=False) == []
    path.write_bytes(path.read_bytes()[:10])
    assert [problem.fault for problem in check(known["lone"], read=False)] == ["truncated"]
    states = {each["id"]: each["state"] for each in json.loads(dmp("models", "list", "--json")[1])}
    assert states["lone"] == "1 of 1 files missing or wrong"


def test_a_size_in_the_lock_counts_for_the_file_of_its_digest_alone(known: dict[str, Model], folder: Path) -> None:
    """Of a file that was put in the place of another, published one the old size says nothing."""
    path = pull(known["lone"])
    (file,) = known["lone"].files
    other = WEIGHTS[:10]
    published = known["lone"].model_copy(update={"files": [file.model_copy(update={"sha256": sha256(other)})]})
    path.write_bytes(other)
    assert check(published, read=False) == check(published) == []


def test_stages_of_other_pools_need_no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_config("smoke", None, ["labels.depth={kind: zoedepth, weights: zoedepth-nyu}"])
    away = settings.model_copy(
        update={"runtime": settings.runtime.model_copy(update={"deployments": {"labels": "labels/gpu"}})}
    )
    asked: list[object] = []
    monkeypatch.setattr("dmp_core.cli.running._runner", lambda: lambda *given, **_: asked.append(given) or [])
    run_nodes(away, str(tmp_path), plan(away))
    assert asked
    with pytest.raises(InputError, match="dmp models pull zoedepth-nyu"):
        run_nodes(settings, str(tmp_path), plan(settings))
    monkeypatch.setattr("dmp_core.cli.running._runner", lambda: _in_turn)  # which runs all stages here
    with pytest.raises(InputError, match="dmp models pull zoedepth-nyu"):
        run_nodes(away, str(tmp_path / "w"), plan(away))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("images={kind: diffusion, model: /no/such}", "images.model"),
        ("quality.clip_model=/no/such", "quality.clip_model"),
    ],
)
def test_a_wrong_path_is_told_by_its_setting(setting: str, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}: /no/such: no such folder"):
        plan(load_config("smoke", None, ["labels.depth={kind: zoedepth, weights: z}", "modalities=[depth]", setting]))


def test_plan_of_the_mini_preset_needs_no_models(tmp_path: Path) -> None:
    needs = json.loads(dmp("plan", "-w", str(tmp_path), "--json")[1])["preflight"]
    assert (needs["models"], needs["unregistered"]) == ([], [])
    assert [disk["place"] for disk in needs["disks"]] == [str(tmp_path)]


def test_a_run_stops_before_any_work_when_weights_are_missing(tmp_path: Path) -> None:
    code, text = dmp(
        "run", "-p", "smoke", "-w", str(tmp_path / "w"), "--set", "labels.depth={kind: zoedepth, weights: zoedepth-nyu}"
    )
    assert code != 0
    assert "labels.depth.weights: " in text
    assert "run: dmp models pull zoedepth-nyu" in text
    assert not list((tmp_path / "w").rglob("*"))


def test_pinned_weights_are_part_of_a_labels_fingerprint(known: dict[str, Model]) -> None:
    override = ["labels.depth={kind: zoedepth, weights: lone}"]

    def label() -> str:
        nodes = {node.id: node for node in plan(load_config("mini", None, override))}
        return nodes["labels/train-depth"].fingerprint

    before = label()
    pull(known["lone"])
    assert label() != before
