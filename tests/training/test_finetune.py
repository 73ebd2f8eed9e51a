"""The trainer learns, can be killed at any time, and notices when it learns nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dmp_core.diffusion import (
    Schedule,
    decode_latents,
    fingerprint,
    interpolate,
    load_adapter,
    reset_weights,
    training_target,
)
from dmp_core.diffusion.adapters import find_adapter
from dmp_core.diffusion.settings import ScheduleConfig
from dmp_core.errors import InputError
from dmp_core.methods.dmp.finetune import finetune, make_card
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.modalities import Code
from dmp_core.training.checkpoints import load_checkpoint, save_checkpoint
from dmp_core.training.data import LabelImages
from dmp_core.training.logs import TrainingLog, read_log
from dmp_core.training.optimisation import learning_rate
from dmp_core.training.settings import LoraConfig
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_labels, toy_pairs
from tests.training.tiny import write_base

CONFIG = TrainConfig(
    lora=LoraConfig(rank=4, targets="all"), steps=12, batch_size=4, learning_rate=5e-3, checkpoint_every=3, log_every=4
)
WHOLE = CONFIG.model_copy(update={"weights": "all", "init": "random", "learning_rate": 1e-3})
CONFIGS = {"lora": CONFIG, "whole": WHOLE}
REPOSITORY = Path(__file__).resolve().parents[2]


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(find_adapter(adapter))


def assert_same_weights(a: Path, b: Path) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def reference(tiny_folder, tmp_path_factory):
    """One undisturbed run."""
    folder = tmp_path_factory.mktemp("reference")
    base = load_base(BaseConfig(model=str(tiny_folder)))
    reports: list[tuple[int, int, str]] = []
    result = finetune(
        CONFIG,
        base,
        toy_pairs(),
        folder / "work",
        folder / "adapter",
        progress=lambda *report: reports.append(report),
    )
    return result, folder, reports


# ------------------------------------------------------------------------------------ learning
def test_first_loss_is_equation_3_by_hand(tiny_base, reference):
    """The up matrices start at zero, so the first step runs the base model itself."""
    result, _, _ = reference
    pairs, schedule = toy_pairs(), Schedule.stable_diffusion()
    batch = pairs.batch(0)
    x, y = pairs.gather(batch)
    with torch.no_grad():
        text = tiny_base.encode_prompt("").expand(4, -1, -1)
        y_t = interpolate(schedule, y, x, batch.timesteps)
        v = tiny_base.unet(y_t, batch.timesteps, encoder_hidden_states=text).sample
    expected = (v - training_target(schedule, y, x, batch.timesteps, "v")).square().mean()
    assert read_log(result.log)[0].loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("num_timesteps", "visited"), [(1, [999]), (4, [249, 499, 749, 999])])
def test_training_visits_the_samplers_timesteps_only(tiny_folder, tmp_path, num_timesteps, visited):
    base, pairs = load_base(BaseConfig(model=str(tiny_folder))), toy_pairs(batch_size=64)
    schedule = ScheduleConfig(spacing="trailing")
    config = CONFIG.model_copy(update={"num_timesteps": num_timesteps, "schedule": schedule, "steps": 2})
    seen: list[torch.Tensor] = []
    base.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    finetune(config, base, pairs, tmp_path / "work", tmp_path / "out")
    assert torch.cat(seen).unique().tolist() == visited


def test_single_pass_training_sees_the_image_and_fits_the_label(tiny_base, tmp_path):
    """The published single pass feeds x at timestep 1 and takes the output as y."""
    config = CONFIG.model_copy(update={"num_timesteps": 1, "prediction": "y", "steps": 1, "log_every": 1})
    pairs = toy_pairs()
    x, y = pairs.gather(pairs.batch(0))
    with torch.no_grad():
        text = tiny_base.encode_prompt("").expand(4, -1, -1)
        expected = (tiny_base.unet(x, 1, encoder_hidden_states=text).sample - y).square().mean()
    result = finetune(config, tiny_base, pairs, tmp_path / "work", tmp_path / "out")
    assert read_log(result.log)[0].loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("prediction", "error"), [("y", "l1"), ("v", "l1"), ("v", "l2")])
def test_the_decoded_loss_is_between_label_images_and_trains_every_layer(tiny_base, tmp_path, prediction, error):
    """On zero terminal SNR v is -y, so both ways the network's first output gives the label."""
    schedule = ScheduleConfig(spacing="trailing", zero_terminal_snr=True)
    changes = {"num_timesteps": 1, "schedule": schedule, "loss": "decoded", "prediction": prediction, "steps": 2}
    changes["colour_error"] = error
    pairs = toy_pairs()
    x, _ = pairs.gather(pairs.batch(0))
    labels = toy_labels(*pairs.pixels(tiny_base.vae))
    if error == "l2":  # of segmentation alone, which is mirrored as albedo is
        labels = LabelImages(labels.codes, "segmentation")
    true = torch.from_numpy(labels.codes[pairs.batch(0).indices].copy()) / 255
    mirrored = pairs.batch(0).flips.bool()
    true[mirrored] = true[mirrored].flip(-1)
    with torch.no_grad():
        text = tiny_base.encode_prompt("").expand(4, -1, -1)
        output = tiny_base.unet(x, 999, encoder_hidden_states=text).sample
        decoded = decode_latents(tiny_base.vae, output if prediction == "y" else -output)
        expected = (decoded - true).abs().mean() if error == "l1" else (decoded - true).square().mean(1).sqrt().mean()
    config = TrainConfig.model_validate(CONFIG.model_dump() | changes)
    before = fingerprint(tiny_base.vae)
    result = finetune(config, tiny_base, pairs, tmp_path / "work", tmp_path / "out", labels=labels)
    assert read_log(result.log)[0].loss == pytest.approx(float(expected), rel=1e-4)
    assert all(value.abs().max() > 0 for value in weights(result.folder).values()), "a layer got no gradient"
    assert fingerprint(tiny_base.vae) == before
    with pytest.raises(ValueError, match=r"set\s+num_timesteps: 1"):
        TrainConfig.model_validate(CONFIG.model_dump() | changes | {"num_timesteps": 2})
    with pytest.raises(InputError, match=r"one label image per sample \(8\)"):
        finetune(config, tiny_base, pairs, tmp_path / "work", tmp_path / "out")


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_balanced_classes_weigh_by_their_rarity(tiny_base, tmp_path, balance):
    """Three quarters of the pixels are one class: at 0.5 each of them weighs 1/√3 of one of the others."""
    schedule = ScheduleConfig(spacing="trailing", zero_terminal_snr=True)
    changes = {"num_timesteps": 1, "schedule": schedule, "loss": "decoded", "steps": 1, "class_balance": balance}
    pairs = toy_pairs()
    height, width = pairs.pixels(tiny_base.vae)
    codes = np.zeros((8, 3, height, width), dtype=np.uint8)
    codes[..., : width // 4] = [[[250]], [[120]], [[10]]]
    labels = LabelImages(codes, "segmentation")
    batch = pairs.batch(0)
    true = torch.from_numpy(labels.gather(batch)) / 255
    with torch.no_grad():
        text = tiny_base.encode_prompt("").expand(4, -1, -1)
        output = tiny_base.unet(pairs.gather(batch)[0], 999, encoder_hidden_states=text).sample
        error = (decode_latents(tiny_base.vae, -output) - true).abs().mean(1)
    rare = true.amax(1) > 0
    weights = torch.where(rare, 0.25**-balance, 0.75**-balance)
    config = TrainConfig.model_validate(CONFIG.model_dump() | changes)
    result = finetune(config, tiny_base, pairs, tmp_path / "work", tmp_path / "out", labels=labels)
    expected = (weights * error).mean() / (0.25 * 0.25**-balance + 0.75 * 0.75**-balance)
    assert read_log(result.log)[0].loss == pytest.approx(float(expected), rel=1e-4)


def test_losses_are_golden(reference):
    """Recorded once: a change of the sampler, the loss, the optimiser or the initialisation is visible here."""
    losses = [record.loss for record in read_log(reference[0].log)]
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert losses == pytest.approx(golden, abs=1e-5)


def test_another_run_gives_the_same_adapter(tiny_base, reference, tmp_path):
    result = finetune(CONFIG, tiny_base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    assert_same_weights(result.folder, reference[0].folder)


def test_loss_falls_on_what_can_be_learnt(tiny_base, tmp_path):
    config = CONFIG.model_copy(update={"steps": 50, "learning_rate": 2e-2})
    result = finetune(config, tiny_base, toy_pairs(batch_size=8), tmp_path / "work", tmp_path / "out")
    losses = [record.loss for record in read_log(result.log)]
    assert result.final_loss < 0.7 * sum(losses[:8]) / 8


@pytest.mark.parametrize("prediction", ["x", "y"])
def test_other_parameterisations_train(tiny_base, tmp_path, prediction):
    config = CONFIG.model_copy(update={"prediction": prediction, "steps": 2})
    result = finetune(config, tiny_base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    assert json.loads((result.folder / "dmp.json").read_text())["prediction"] == prediction


def test_accumulated_batches_are_one_large_batch(tiny_folder, tmp_path):
    """Two half batches with the draws of one step each give the gradient of both together."""

    class Halves:
        """The reference draws, cut in two."""

        def __init__(self) -> None:
            self.whole = toy_pairs(4)
            self.keys, self.source, self.can_flip = self.whole.keys, self.whole.source, True
            self.gather = self.whole.gather

        def __len__(self) -> int:
            return len(self.whole)

        def batch(self, draw: int):
            return self.whole.batch(draw // 2).part(draw % 2, 2)

    runs = {}
    for name, pairs, accumulation in (("whole", toy_pairs(4), 1), ("halves", Halves(), 2)):
        config = CONFIG.model_copy(update={"steps": 3, "gradient_accumulation": accumulation})
        base = load_base(BaseConfig(model=str(tiny_folder)))
        runs[name] = finetune(config, base, pairs, tmp_path / name, tmp_path / f"{name}-out")
    whole, halves = (weights(run.folder) for run in runs.values())
    for key in whole:
        torch.testing.assert_close(whole[key], halves[key], atol=2e-4, rtol=1e-3)


def test_captions_reach_the_network(tiny_folder, tmp_path):
    prompts = [f"room {n}" for n in range(8)]
    losses = {}
    for name, given in (("captions", prompts), ("reversed", prompts[::-1])):
        config = CONFIG.model_copy(update={"use_prompt": True, "steps": 2})
        base = load_base(BaseConfig(model=str(tiny_folder)))
        result = finetune(config, base, toy_pairs(), tmp_path / name, tmp_path / f"{name}-out", prompts=given)
        losses[name] = read_log(result.log)[0].loss
    assert losses["captions"] != losses["reversed"]
    with pytest.raises(InputError, match=r"train.use_prompt: needs one prompt per sample \(8\), found none"):
        finetune(config, load_base(BaseConfig(model=str(tiny_folder))), toy_pairs(), tmp_path / "n", tmp_path / "no")


def test_bfloat16_runs_and_keeps_adapters_in_full_precision(tiny_folder, tmp_path):
    config = CONFIG.model_copy(update={"mixed_precision": "bf16", "steps": 2})
    base = load_base(BaseConfig(model=str(tiny_folder)), dtype=torch.bfloat16)
    result = finetune(config, base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    assert {tensor.dtype for tensor in weights(result.folder).values()} == {torch.float32}
    assert torch.isfinite(torch.tensor(result.final_loss))


# --------------------------------------------------------------------------- the whole network
@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_all_weights_are_trained_from_where_they_should_start(tiny_folder, tmp_path, init):
    config = WHOLE.model_copy(update={"init": init, "steps": 3, "checkpoint_every": 1})
    base = load_base(BaseConfig(model=str(tiny_folder)))
    prior = {name: weight.clone() for name, weight in base.unet.state_dict().items()}
    result = finetune(config, base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    trained = weights(result.folder)
    assert trained.keys() == prior.keys()
    assert result.trainable_parameters == sum(weight.numel() for weight in prior.values())
    assert not any(torch.equal(trained[name], prior[name]) for name in prior)
    far = [
        ((trained[name] - prior[name]).norm() / prior[name].norm()).item() for name in prior if prior[name].dim() > 1
    ]
    # Three small steps stay near the start; random weights are unrelated to the prior's.
    assert max(far) < 0.5 if init == "pretrained" else min(far) > 0.5


def test_random_weights_depend_on_the_seed_alone(tiny_folder):
    drawn = []
    for seed in (0, 0, 1):
        torch.rand(3)  # the caller's own draws change nothing
        unet = reset_weights(load_base(BaseConfig(model=str(tiny_folder))).unet, seed)
        drawn.append(unet.state_dict()["conv_in.weight"].clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_whole_network_predicts_what_was_trained_and_opens_with_diffusers(tiny_folder, tmp_path):
    from diffusers import UNet2DConditionModel

    base = load_base(BaseConfig(model=str(tiny_folder)))
    config = WHOLE.model_copy(update={"steps": 2})
    result = finetune(config, base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    latents, t = torch.ones(1, 4, 4, 4), torch.tensor([7])
    text = base.encode_prompt("")
    loaded = load_base(BaseConfig(model=str(tiny_folder)))
    assert load_adapter(loaded.unet, result.folder).prediction == "v"
    with torch.no_grad():
        expected = base.unet(latents, t, text).sample
        for unet in (loaded.unet, UNet2DConditionModel.from_pretrained(result.folder)):
            assert torch.equal(unet(latents, t, text).sample, expected)


def test_half_precision_halves_the_file_and_trains_in_full(tiny_folder, tmp_path):
    config = WHOLE.model_copy(update={"mixed_precision": "bf16", "steps": 2})
    base = load_base(BaseConfig(model=str(tiny_folder)), dtype=torch.bfloat16)
    result = finetune(config, base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    assert {tensor.dtype for tensor in weights(result.folder).values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in base.unet.parameters()} == {torch.float32}
    assert torch.isfinite(torch.tensor(result.final_loss))


def test_a_network_of_another_shape_is_refused(tiny_folder, tmp_path):
    base = load_base(BaseConfig(model=str(tiny_folder)))
    finetune(WHOLE.model_copy(update={"steps": 1}), base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    other = load_base(BaseConfig(model=str(write_base(tmp_path / "wide", latent_channels=8))))
    with pytest.raises(InputError, match="trained on another base model"):
        load_adapter(other.unet, tmp_path / "out")
    with pytest.raises(InputError, match="not the weights of this U-Net"):
        load_adapter(other.unet, tmp_path / "out", check_base=False)


def test_random_weights_alone_are_refused():
    with pytest.raises(ValueError, match="set weights: all"):
        TrainConfig(init="random")


def test_new_settings_at_their_defaults_do_not_change_fingerprints():
    assert not {"weights", "init", "samples"} & TrainConfig().model_dump().keys()


# ------------------------------------------------------------------------- outputs
def test_adapter_folder_states_how_to_run_it(tiny_folder, tmp_path):
    base = load_base(BaseConfig(model=str(tiny_folder)))
    plain = fingerprint(base.unet)
    card = make_card(
        "depth",
        "shipped:tiny",
        code=Code(depth_scale=6.0),
        sampling={"num_steps": 1, "source": "estimated"},
        data={"source": "aa", "target": "bb"},
    )
    config = CONFIG.model_copy(update={"steps": 1})
    result = finetune(config, base, toy_pairs(), tmp_path / "work", tmp_path / "out", card=card)
    meta = json.loads((result.folder / "dmp.json").read_text())
    assert (meta["task"], meta["base"], meta["base_fingerprint"]) == ("depth", "shipped:tiny", plain)
    assert meta["encoding"]["scale"] == 6.0
    assert meta["encoding"]["mode"] == "F"
    assert meta["resolution"] == 16
    assert meta["training"]["lora"]["targets"] == "all"
    assert meta["data"] == {"source": "aa", "target": "bb"}
    fresh = load_base(BaseConfig(model=str(tiny_folder)))
    assert load_adapter(fresh.unet, result.folder).num_steps == 1


def test_log_progress_and_tensorboard(reference):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, folder, reports = reference
    records = read_log(result.log)
    assert [record.step for record in records] == list(range(1, 13))
    assert records[0].learning_rate == CONFIG.learning_rate
    assert [report[:2] for report in reports] == [(step, 12) for step in range(1, 13)]
    assert reports[0][2] == f"loss {records[0].loss:.4f}"
    events = EventAccumulator(str(folder / "work" / "tensorboard")).Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [4, 8, 12]
    assert losses[0].value == pytest.approx(sum(record.loss for record in records[:4]) / 4, rel=1e-5)


def test_log_of_a_resumed_run_drops_rows_after_the_checkpoint(tmp_path, reference):
    rows = read_log(reference[0].log)
    log = TrainingLog(tmp_path, 0, 100)
    for row in rows:
        log.add(row)
    log.close()
    with (tmp_path / "loss.csv").open("a") as stream:
        stream.write("13,0.5,0.0")  # the process died while it wrote
    assert read_log(tmp_path / "loss.csv") == rows
    TrainingLog(tmp_path, 6, 100).close()
    assert [row.step for row in read_log(tmp_path / "loss.csv")] == list(range(1, 7))


# ------------------------------------------------------------------------------------ resuming
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", pytest.param("whole", marks=pytest.mark.e2e)])
def test_a_killed_run_resumes_to_the_same_weights(tiny_folder, tmp_path, name):
    """SIGKILL in the middle of a real process, after a checkpoint but not at one."""
    undisturbed = finetune(
        CONFIGS[name],
        load_base(BaseConfig(model=str(tiny_folder))),
        toy_pairs(),
        tmp_path / "other",
        tmp_path / "never",
    )
    work, out = tmp_path / "work", tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.training.train_in_process", name, str(tiny_folder), str(work), str(out)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "8":
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    assert child.returncode == -signal.SIGKILL
    assert not out.exists()
    result = finetune(CONFIGS[name], load_base(BaseConfig(model=str(tiny_folder))), toy_pairs(), work, out)
    assert result.resumed_at in (6, 9)
    assert_same_weights(result.folder, undisturbed.folder)
    untimed = [[row[:4] for row in read_log(log)] for log in (result.log, undisturbed.log)]
    assert untimed[0] == untimed[1]
    assert result.final_loss == undisturbed.final_loss


def test_a_finished_run_only_writes_its_adapter_again(tiny_base, tmp_path, reference):
    import shutil

    shutil.copytree(reference[1] / "work", tmp_path / "work")
    result = finetune(CONFIG, tiny_base, toy_pairs(), tmp_path / "work", tmp_path / "out")
    assert result.resumed_at == 12
    assert_same_weights(result.folder, reference[0].folder)


def test_checkpoints_of_another_run_are_refused(tiny_base, tmp_path, reference):
    import shutil

    shutil.copytree(reference[1] / "work", tmp_path / "work")
    other = CONFIG.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(InputError, match=r"checkpoint of another training run.*delete .*checkpoints"):
        finetune(other, tiny_base, toy_pairs(), tmp_path / "work", tmp_path / "out")


def test_two_checkpoints_are_kept_and_a_damaged_one_is_skipped(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"identity": "a", "step": step})
    (tmp_path / ".writing-killed").mkdir()
    save_checkpoint(tmp_path, 4, {"identity": "a", "step": 4})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    (tmp_path / "step-00000004" / "state.pt").write_bytes(b"cut short")
    state = load_checkpoint(tmp_path, "a")
    assert state is not None
    assert state["step"] == 3


# -------------------------------------------------------------------------------------- faults
def test_infinite_loss_stops_the_run_and_keeps_the_checkpoint(tiny_base, tmp_path):
    pairs = toy_pairs()
    good = pairs.gather

    def poisoned(batch):
        x, y = good(batch)
        return (x, y * float("nan")) if torch.equal(batch.timesteps, pairs.batch(7).timesteps) else (x, y)

    pairs.gather = poisoned  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"loss is nan at step 8.*lower train.learning_rate"):
        finetune(CONFIG, tiny_base, pairs, tmp_path / "work", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "work" / "checkpoints").iterdir()) == [
        "step-00000003",
        "step-00000006",
    ]
    assert len(read_log(tmp_path / "work" / "loss.csv")) == 6, "what was read before the last checkpoint"


def test_parameters_without_a_gradient_stop_the_run(tiny_base, tmp_path):
    """A decoder, or a layer, under no_grad would silently train nothing."""
    middle = tiny_base.unet.mid_block
    forward = middle.forward

    def detached(*args, **kwargs):
        with torch.no_grad():
            return forward(*args, **kwargs)

    middle.forward = detached
    with pytest.raises(InputError, match=r"trainable parameters get no gradient \(first: "):
        finetune(CONFIG, tiny_base, toy_pairs(), tmp_path / "work", tmp_path / "out")


def test_learning_rate_schedules():
    config = TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, lr_schedule="cosine")
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    linear = config.model_copy(update={"lr_schedule": "linear", "warmup_steps": 0})
    assert learning_rate(linear, 25) == 0.75
    constant = config.model_copy(update={"lr_schedule": "constant"})
    assert learning_rate(constant, 99) == 1.0
