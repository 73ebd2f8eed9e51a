"""Which artefacts a change of configuration makes stale, and which it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.config import load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.modalities import find_modality
from dmp_core.prompts.settings import TransformersPrompts
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import Node, plan

BASE = ["base.model=some/model", "adapters={}"]  # a hub id: planning needs no files of it


def nodes(*overrides: str) -> dict[str, str]:
    return {node.id: node.fingerprint for node in plan(load_config("mini", None, [*BASE, *overrides]))}


def stale(*overrides: str) -> set[str]:
    before, after = nodes(), nodes(*overrides)
    return {node for node in after if before.get(node) != after[node]}


def stages(ids: set[str]) -> set[str]:
    return {node.split("/")[0] for node in ids}


def test_every_node_comes_after_its_inputs():
    seen: set[str] = set()
    for node in plan(load_config("mini", None, BASE)):
        assert {source.id for source in node.inputs.values()} <= seen
        seen.add(node.id)
    assert "report/bedrooms" in seen


def test_learning_rate_redoes_train_to_report_only():
    changed = stale("train.learning_rate=0.01")
    assert stages(changed) == {"train", "predict", "evaluate", "report"}
    assert not any("ceiling" in node for node in changed)


def test_settings_of_segmentation_train_no_other_task_again():
    assert {n for n in stale("train.colour_error=l1") if n.startswith("train")} == {"train/segmentation-dmp"}


def test_a_task_may_have_its_own_resolution():
    """Its images are encoded once more; it is then as if all tasks had that resolution, the others as if none had."""
    everywhere = ["latents.resolutions={}", "latents.resolution=128"]
    plain, mixed, large = nodes(everywhere[0]), nodes("latents.resolutions={segmentation: 128}"), nodes(*everywhere)
    assert mixed.keys() - plain.keys() == {"latents/image-128"}
    assert mixed["latents/image-128"] == large["latents/image"]
    for node in (n for n in mixed if n.startswith(("latents", "train", "predict", "evaluate"))):
        own = "segmentation" in node
        assert node == "latents/image-128" or mixed[node] == (large if own else plain)[node]
        assert node.startswith("latents/image") or large[node] != plain[node]


def test_labeler_change_redoes_one_column_and_what_depends_on_it():
    changed = stale("labels.depth={kind: zoedepth, weights: x}", "images={kind: render, resolution: 64}")
    assert {node for node in changed if node.startswith(("labels", "latents", "train"))} == {
        *(f"labels/{split}-depth" for split in ("train", "in_domain", "out_of_domain", "arbitrary")),
        "latents/depth",
        "train/depth-dmp",
    }


def test_how_labels_are_read_changes_only_predictions_of_the_tasks_that_read_it():
    classes, others = (stale(f"sampling.{what}") for what in ("colour_noise=0.2", "mirrored=false"))
    assert {node.split("-")[1] for node in classes if node.startswith("predict")} == {"segmentation"}
    assert "segmentation" not in {node.split("-")[1] for node in others if node.startswith("predict")}
    assert not any(node.startswith(("latents", "train")) or node.endswith("ceiling") for node in classes | others)


def test_growing_the_training_set_leaves_the_test_sets():
    changed = stale("splits.train.count=200")
    assert not any("in_domain" in n or "out_of" in n for n in changed if n.startswith(("prompts", "images", "labels")))


def test_rules_of_clean_up_are_in_the_fingerprint_where_they_can_give_other_captions():
    def rules(*overrides: str) -> dict[str, object]:
        config = load_config("mini", None, [*BASE, *overrides])
        return {n.name: n.config.model_dump().get("clean_up") for n in plan(config) if n.stage == "prompts"}

    every = {"train", "in_domain", "out_of_domain", "arbitrary"}
    grammar = "prompts.generator={kind: grammar}"
    assert rules(grammar) == dict.fromkeys(every)
    assert rules() == dict.fromkeys(every - {"in_domain"}, 2) | {"in_domain": None}
    assert rules("splits.in_domain.count=33") == dict.fromkeys(every, 2)
    assert rules(grammar, "splits.train.keywords=[St. Peter church]")["train"] == 2
    assert nodes()["prompts/in_domain"] == "240684b76df6"  # measured: all of its captions pass
    assert nodes(grammar)["prompts/in_domain"] == nodes(grammar, "splits.train.keywords=[my room]")["prompts/in_domain"]


def test_meanings_are_in_the_fingerprint_where_a_keyword_means_another_place_than_before():
    def meanings(*overrides: str) -> dict[str, object]:
        config = load_config("mini", None, [*BASE, "prompts.generator={kind: grammar}", *overrides])
        return {n.name: n.config.model_dump().get("meanings") for n in plan(config) if n.stage == "prompts"}

    assert set(meanings().values()) == {None}
    assert meanings("splits.train.keywords=[kitchen for giants, church]")["train"] is None
    assert meanings("splits.train.keywords=[kitchen, kids room]") == {**meanings(), "train": 2}


@pytest.mark.parametrize("given", ["keywords", "keywords_file"])
def test_keywords_that_no_caption_can_have_are_rejected_before_work(tmp_path, given):
    file = tmp_path / "words.txt"
    file.write_text(f"kitchen\n!!!\n{'a' * 151}\n")
    split, value = ("train", f"[kitchen, '!!!', {'a' * 151}]") if given == "keywords" else ("out_of_domain", file)
    field = f"splits.{split}.{given}"
    with pytest.raises(InputError, match=rf"{field}: '!!!' .*; {field}: 'aaa.* 151 char"):
        nodes(f"{field}={value}")


def test_a_dataset_of_such_keywords_leaves_nothing_behind(tmp_path):
    settings = load_config("smoke", None, [])
    with pytest.raises(InputError, match=r"'bed\\x07room' contains control characters.*'\?' names nothing"):
        dataset_config(settings, str(tmp_path / "w"), ["bed\x07room", "kitchen", "?"], 3)
    assert not (tmp_path / "w").exists()


def test_runtime_changes_nothing():
    assert stale("runtime.workers=1", "runtime.device=cuda") == set()


@pytest.mark.parametrize("model", ["some/model", "bigscience/bloomz-7b1"], ids=["any", "registered"])
def test_where_vllm_runs_changes_nothing_and_a_replacement_for_it_does(model):
    vllm = f"prompts.generator={{kind: vllm, model: {model}%s}}"
    before = nodes(vllm % "")["prompts/train"]
    for how in ("server_url: http://gpu:8000", "gpu_memory_utilization: 0.5", "max_model_len: 512"):
        assert nodes(vllm % f", {how}")["prompts/train"] == before
    for what in ("fallback: false", "revision: v2", "dtype: float16", "eta_cutoff: 0"):
        assert nodes(vllm % f", {what}")["prompts/train"] != before


def test_a_model_that_a_server_runs_is_not_needed_here():
    vllm = "prompts.generator={kind: vllm, model: bigscience/bloomz-7b1%s}"
    engine, served = (plan(load_config("mini", None, [*BASE, vllm % s])) for s in ("", ", server_url: http://gpu:8000"))
    assert "prompts.generator.model" in {use.field for node in engine for use in node.models}
    assert "prompts.generator.model" not in {use.field for node in served for use in node.models}


def test_other_weights_at_the_same_path_are_other_labels_and_prompts(tmp_path):
    file, folder = tmp_path / "net.ckpt", tmp_path / "lm"
    folder.mkdir()
    settings = (
        f"labels.depth={{kind: omnidata, weights: {file}}}",
        f"prompts.generator={{kind: transformers, model: {folder}, gguf_file: null}}",
    )
    found = []
    for content in (b"one", b"other"):
        file.write_bytes(content)
        (folder / "config.json").write_bytes(content)
        found.append(nodes(*settings))
    assert found[0]["labels/train-depth"] != found[1]["labels/train-depth"]
    assert found[0]["prompts/train"] != found[1]["prompts/train"]


@pytest.mark.parametrize("name", ["omnidata_dpt_normal_v2.ckpt", "net.pth", "net.t7", "net.onnx"])
def test_a_folder_of_weights_is_known_by_all_its_files(tmp_path, name):
    settings = f"labels.depth={{kind: omnidata, weights: {tmp_path}}}"
    found = []
    for content in (b"one", b"other"):
        (tmp_path / name).write_bytes(content)
        found.append(nodes(settings)["labels/train-depth"])
    (tmp_path / ".note").write_bytes(b"of a download")
    assert found[0] != found[1] == nodes(settings)["labels/train-depth"]
    (tmp_path / "more.ckpt").write_bytes(b"more")
    more = nodes(settings)["labels/train-depth"]
    (tmp_path / "more.ckpt").unlink()
    assert more != found[1] == nodes(settings)["labels/train-depth"]


def test_of_a_folder_of_gguf_files_the_named_one_counts(tmp_path):
    settings = f"prompts.generator={{kind: transformers, model: {tmp_path}, gguf_file: a.gguf}}"
    found = []
    for name, content in (("a.gguf", b"one"), ("b.gguf", b"another"), ("a.gguf", b"other")):
        (tmp_path / name).write_bytes(content)
        found.append(nodes(settings)["prompts/train"])
    assert found[0] == found[1] != found[2]


def test_settings_that_came_later_leave_older_fingerprints():
    """A fingerprint is of all settings that are dumped: these are, only when they are set."""
    later = {"revision", "dtype"}
    assert not later & set(TransformersPrompts(model="some/model").model_dump())
    assert later < set(TransformersPrompts(model="some/model", revision="v2", dtype="float16").model_dump())


def test_train_prompts_exclude_the_test_prompts_of_shared_keywords():
    by_id = {node.id: node for node in plan(load_config("mini", None, BASE))}
    # "bedroom" is also one of the 409 indoor scene names.
    assert set(by_id["prompts/train"].inputs) == {"exclude_in_domain", "exclude_out_of_domain"}
    assert by_id["prompts/in_domain"].inputs == {}


def test_finished_adapters_are_installed_without_latents(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    by_id = {node.id: node for node in plan(load_config("mini", None, [*BASE, f"adapters.depth={tmp_path}"]))}
    assert by_id["train/depth-dmp"].inputs == {}
    assert "latents/depth" not in by_id
    assert "latents/normal" in by_id


def test_unknown_keyword_file_and_model_fail_before_work():
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        plan(load_config("mini", None, [*BASE, "splits.out_of_domain.keywords_file=nowhere.txt"]))
    with pytest.raises(InputError, match=r"^base\.model: \./nowhere: no such folder"):
        plan(load_config("mini", None, ["base.model=./nowhere", "adapters={}"]))
    with pytest.raises(InputError, match=r"^adapters\.depth: shipped:nothing: no such model ships"):
        plan(load_config("mini", None, [*BASE, "adapters.depth=shipped:nothing"]))
    with pytest.raises(InputError, match=r"^editor\.model: \./nowhere: no such folder"):
        plan(load_config("smoke", None, [*BASE, "train.method=visii", "editor.model=./nowhere"]))
    with pytest.raises(InputError, match=r"^train\.fit\.clip_model: \./nowhere: no such folder"):
        plan(load_config("smoke", None, [*BASE, "train.method=visii", "train.fit.clip_model=./nowhere"]))


# ---------------------------------------------------------------------------------- own images
SHIPPED = "adapters={" + ", ".join(f"{t}: 'shipped:{t}'" for t in ("normal", "depth", "segmentation", "albedo")) + "}"


def write_photo(folder: Path, name: str = "a", value: int = 0, labels: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = np.full((16, 16, 3), value, dtype=np.uint8)
    Image.fromarray(image).save(folder / f"{name}.png")
    arrays = {"depth": np.ones((16, 16), np.float32), "albedo": image}
    for task in labels:
        extension, data = find_modality(task).member, find_modality(task).encode(arrays[task])
        (folder / f"{name}.{extension}").write_bytes(data)


def photo_plan(splits: dict[str, object], *overrides: str, **values: object) -> dict[str, Node]:
    settings = load_config("mini", None, list(overrides)).model_dump(mode="json") | {"splits": splits} | values
    return {node.id: node for node in plan(validate(settings, "test"))}


def test_a_folder_leaves_the_other_splits_as_they_are(tmp_path):
    write_photo(tmp_path)
    generated = nodes()
    mixed = nodes("splits.photos.folder=" + str(tmp_path))
    assert {node for node in generated if mixed[node] != generated[node]} == {"report/bedrooms"}
    assert not any(node.startswith(("labels/photos", "predict/photos-normal-ceiling")) for node in mixed)
    assert "predict/photos-normal-dmp" in mixed
    assert "folder" not in load_config("mini").splits["train"].model_dump()


def test_a_folder_is_known_by_its_content_not_by_its_place(tmp_path):
    write_photo(tmp_path / "one" / "photos")
    write_photo(tmp_path / "two" / "photos")
    one, two = (photo_plan({"arbitrary": {"folder": str(tmp_path / n / "photos")}}, SHIPPED) for n in ("one", "two"))
    # The report prints the configuration, and with it the folder.
    same = {k for k in one if one[k].fingerprint == two[k].fingerprint}
    assert same == set(one) - {"report/bedrooms"}
    write_photo(tmp_path / "two" / "photos", "b")
    more = photo_plan({"arbitrary": {"folder": str(tmp_path / "two" / "photos")}}, SHIPPED)
    assert all(more[k].fingerprint != node.fingerprint for k, node in one.items() if node.stage != "train")


def test_photos_alone_are_predicted_by_finished_adapters_or_not_at_all(tmp_path):
    write_photo(tmp_path)
    splits = {"arbitrary": {"folder": str(tmp_path)}}
    with_adapters = photo_plan(splits, SHIPPED, modalities=["normal", "depth"])
    assert list(with_adapters) == [
        "prompts/arbitrary", "images/arbitrary", "quality/arbitrary", "shards/bedrooms/arbitrary",
        "train/normal-dmp", "predict/arbitrary-normal-dmp", "train/depth-dmp", "predict/arbitrary-depth-dmp",
        "report/bedrooms",
    ]  # fmt: skip
    assert stages(set(photo_plan(splits, "adapters={}"))) == {"prompts", "images", "quality", "shards"}
    by_model = {task: {"kind": "omnidata", "weights": "x"} for task in ("normal", "depth")}
    labelled = photo_plan(splits, "adapters={}", modalities=["normal", "depth"], labels=by_model)
    assert {"labels/arbitrary-normal", "labels/arbitrary-depth"} <= set(labelled)


def test_labels_in_the_folder_are_scored_and_others_are_not(tmp_path):
    write_photo(tmp_path, labels=("depth",))
    planned = photo_plan({"in_domain": {"folder": str(tmp_path)}}, SHIPPED, modalities=["normal", "depth"])
    assert "labels/in_domain-depth" in planned
    assert set(planned["evaluate/depth"].inputs) == {
        "labels_in_domain", "dmp_in_domain", "ceiling_in_domain", "quality_in_domain_image",
    }  # fmt: skip
    assert not {"labels/in_domain-normal", "evaluate/normal", "predict/in_domain-normal-ceiling"} & set(planned)


def test_training_needs_labels_one_size_and_other_images_than_the_test(tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    write_photo(train, labels=("depth",))
    write_photo(test, value=9, labels=("depth",))
    splits = {"train": {"folder": str(train)}, "in_domain": {"folder": str(test)}}
    planned = photo_plan(splits, "adapters={}", modalities=["depth"])
    assert "labels_train" in planned["evaluate/depth"].inputs
    with pytest.raises(InputError, match="its folder holds no normal labels"):
        photo_plan(splits, "adapters={}", modalities=["normal"])
    Image.new("RGB", (20, 16)).save(train / "b.png")
    (train / "b.depth.npy").write_bytes(find_modality("depth").encode(np.ones((16, 20), np.float32)))
    with pytest.raises(InputError, match=r"splits\.train\.fit: images of several sizes"):
        photo_plan({**splits, "train": {"folder": str(train), "fit": "keep"}}, "adapters={}", modalities=["depth"])
    write_photo(test, value=0, labels=("depth",))
    with pytest.raises(InputError, match="is also trained on, as"):
        photo_plan(splits, "adapters={}", modalities=["depth"])


# -------------------------------------------------------------------------- the compared methods
def method_nodes(name: str, *overrides: str) -> dict[str, Node]:
    config = load_config("smoke", None, [*BASE, f"train.method={name}", *overrides])
    return {node.id: node for node in plan(config)}


@pytest.mark.parametrize(
    ("method", "inference", "fit"),
    [
        ("sdedit", "train.sampling.strength=0.3", "train.fit.steps=7"),
        ("ddib", "train.sampling.num_steps=7", "train.fit.lora.rank=2"),
        ("ip2p_hard", "train.sampling.guidance_scale=2", "train.instructions.depth=deeper"),
        ("ip2p_learned", "train.sampling.seed=3", "train.fit.initial_word=depth"),
        ("visii", "train.sampling.noise=fresh", "train.fit.num_pairs=2"),
    ],
)
def test_settings_of_inference_train_nothing_again(method, inference, fit):
    known = method_nodes(method)
    again, trained = (
        {node_id.split("/")[0] for node_id, node in method_nodes(method, change).items()
         if known[node_id].fingerprint != node.fingerprint}
        for change in (inference, fit)
    )  # fmt: skip
    assert again == {"predict", "evaluate"}
    assert trained == {"train", "predict", "evaluate"}
    assert not any(
        "ceiling" in i for i, n in method_nodes(method, inference).items() if n.fingerprint != known[i].fingerprint
    )


def test_sdedit_and_ddib_share_one_fit():
    fits = [
        {i: n.fingerprint for i, n in method_nodes(name).items() if n.stage == "train"} for name in ("sdedit", "ddib")
    ]
    assert fits[0] == fits[1]
    assert len(fits[0]) == 5


def test_an_editor_is_made_by_the_run_unless_one_is_named():
    made = {name: method_nodes(name) for name in ("ip2p_hard", "ip2p_learned", "visii")}
    (editor,) = {nodes["editor/instruct"].fingerprint for nodes in made.values()}
    for name, nodes in made.items():
        asked = {i for i, n in nodes.items() if "editor" in n.inputs}
        assert {i for i in nodes if i.startswith("predict") and i.endswith(name)} <= asked
        assert any(i.startswith("train") for i in asked) == (name != "ip2p_hard")
    assert method_nodes("visii", "editor.recipe.fit.steps=3")["editor/instruct"].fingerprint != editor
    assert method_nodes("visii", "base.model=other/model")["editor/instruct"].fingerprint != editor
    named = method_nodes("visii", "editor.model=some/editor")
    assert "editor/instruct" not in named
    assert {use.reference for use in named["predict/in_domain-depth-visii"].models} == {"some/editor"}
    assert named["train/depth-visii"].fingerprint != made["visii"]["train/depth-visii"].fingerprint
    assert not any(node.stage == "editor" for node in plan(load_config("mini")))


@pytest.mark.parametrize("wrong", ["fit.stepz=3", "scenes.resolution=5", "base.model=x"])
def test_a_recipe_that_is_wrong_is_named(wrong):
    with pytest.raises(InputError, match=rf"editor\.recipe: {wrong.partition('=')[0].partition('.')[0]}"):
        method_nodes("visii", f"editor.recipe.{wrong}")
