"""Training: resumption changes nothing, targets are what scenes say, losses are their formulas."""

import importlib
import json
import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from vitscope.backbones import scenes_text
from vitscope.draws import generator
from vitscope.embedded.labels import Caption, full_caption, partial_caption
from vitscope.embedded.layout import SceneSettings
from vitscope.embedded.scene import plan_scene, render_scene
from vitscope.embedded.vocabulary import COLOURS, LABEL_CLASSES, MASK_CLASSES, TEXTURES

# by name: a checker of types does not look into the scripts' folder
batches, losses, networks, scenes_vit, sizes, evaluation = (
    importlib.import_module(name)
    for name in ("batches", "losses", "networks", "scenes_vit", "sizes", "evaluation")
)

USUAL = ["--size", "test", "--device", "cpu", "--held-out", "16", "--evaluate-every", "24"]


def train(folder, *more: str) -> None:
    folder.mkdir(exist_ok=True)
    scenes_vit.train(scenes_vit.parse([*USUAL, "--out", str(folder), *more]))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "scenes-vit-test.safetensors")


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    train(tmp_path / "whole")
    step = scenes_vit._Run.step

    def break_down(run: Any, batch: Any) -> Any:
        if run.images == 40:
            raise KeyboardInterrupt
        return step(run, batch)

    monkeypatch.setattr(scenes_vit._Run, "step", break_down)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", "--save-every", "0")
    monkeypatch.setattr(scenes_vit._Run, "step", step)
    assert not (tmp_path / "broken" / "scenes-vit-test.safetensors").exists()
    train(tmp_path / "broken")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [24, 48, 64]


def test_another_recipe_is_not_resumed(tmp_path) -> None:
    train(tmp_path, "--images", "8")
    with pytest.raises(SystemExit, match="was made by"):
        train(tmp_path, "--images", "8", "--seed", "1")
    train(tmp_path, "--images", "16")  # longer is allowed
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["images"] == 16


def test_training_moves_every_parameter_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = networks.DualEncoder(sizes.SIZES["test"])
    batch = batches.render_batch(0, 0, 16, 32, SceneSettings())
    optimizer = torch.optim.AdamW(scenes_vit._groups(model), lr=3e-3)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    totals = []
    for _ in range(40):
        text = model.text(sizes.tokenize(batch.captions))
        parts = losses.losses(model(batch.images), text, model.scale(), batch)
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append({name: float(value.detach()) for name, value in parts.items()})
    for name in totals[0]:
        assert totals[-1][name] < 0.95 * totals[0][name], name
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert still == []


def test_patch_targets_count_pixels() -> None:
    seed, index, side = 4, 3, 48
    batch = batches.render_batch(seed, index, 1, side, SceneSettings())
    scene, things = render_scene(seed, index, side), plan_scene(seed, index).layout.things
    n_asked = 0
    for patch in range(36):
        rows = slice(8 * (patch // 6), 8 * (patch // 6) + 8)
        columns = slice(8 * (patch % 6), 8 * (patch % 6) + 8)
        shares = [float((scene.mask[rows, columns] == c).mean()) for c in range(len(MASK_CLASSES))]
        np.testing.assert_allclose(batch.mask[0, patch], shares, atol=1e-6)
        mean = np.log(scene.depth[rows, columns].astype(float)).mean()
        assert float(batch.log_depth[0, patch]) == pytest.approx(mean, abs=1e-4)
        owned = [
            float((scene.instances[rows, columns] == i + 1).mean()) for i in range(len(things))
        ]
        main = things[int(np.argmax(owned))]
        asked = max(owned) >= batches.OBJECT_SHARE
        n_asked += asked
        expected = (
            (TEXTURES.index(main.texture), COLOURS.index(main.colour))
            if asked
            else (batches.NOT_ASKED,) * 2
        )
        assert (int(batch.texture[0, patch]), int(batch.colour[0, patch])) == expected
    assert n_asked > 2


def test_batches_come_in_order_and_do_not_depend_on_where_they_begin() -> None:
    total = 64
    all_of_them = list(batches.batches(0, 0, total, 8, 16, 0))
    later = list(batches.batches(0, 40, total, 8, 16, 0))
    assert len(all_of_them) == 8 and len(later) == 3
    for a, b in zip(all_of_them[5:], later, strict=True):
        assert torch.equal(a.images, b.images) and a.captions == b.captions
        assert torch.equal(a.true, b.true)
    # nor on where a batch begins
    shifted = batches.render_batch(0, 4, 8, 16, batches.settings_at(0.0))
    assert torch.equal(shifted.images[:4], all_of_them[0].images[4:])
    assert shifted.captions[:4] == all_of_them[0].captions[4:]
    assert batches.settings_at(0.0).max_objects < batches.settings_at(0.9).max_objects


def test_caption_loss_spreads_its_target_over_true_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    image, text = (
        functional.normalize(torch.randn(5, 7, generator=random), dim=-1) for _ in range(2)
    )
    scale = torch.tensor(3.0)
    own = torch.arange(5)
    logits = 3 * image @ text.T
    clip = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    assert losses.caption_loss(image, text, scale, torch.eye(5)) == pytest.approx(float(clip))
    true = torch.eye(5)
    true[0, 3] = true[2, 1] = true[2, 4] = 1
    total = 0.0
    for a, b in ((true, logits), (true.T, logits.T)):
        for i in range(5):
            exps = [math.exp(float(v)) for v in b[i]]
            matches = [j for j in range(5) if a[i, j]]
            total -= sum(math.log(exps[j] / sum(exps)) for j in matches) / len(matches) / 10
    assert losses.caption_loss(image, text, scale, true) == pytest.approx(total, rel=1e-5)


def test_patch_losses_fade_but_stay() -> None:
    weights = [losses.dense_weight(share) for share in np.linspace(0, 1, 21)]
    assert weights[0] == losses.DENSE_FIRST
    assert weights[-1] == pytest.approx(losses.DENSE_LAST)
    assert all(a >= b - 1e-12 for a, b in pairwise(weights))


def test_learning_rate_warms_up_and_falls() -> None:
    size = sizes.SIZES["s"]
    first = scenes_vit.learning_rate(0, size)
    peak = scenes_vit.learning_rate(sizes.WARMUP_STEPS * size.batch, size)
    last = scenes_vit.learning_rate(size.images, size)
    assert first == pytest.approx(sizes.LEARNING_RATE / sizes.WARMUP_STEPS)
    assert 0.99 * sizes.LEARNING_RATE < peak <= sizes.LEARNING_RATE
    assert last == pytest.approx(sizes.FINAL_RATE * sizes.LEARNING_RATE)


def test_captions_hold_in_their_own_scene_and_are_all_known_words() -> None:
    plans = [plan_scene(1, index) for index in range(60)]
    captions: list[Caption] = []
    for index, plan in enumerate(plans):
        for caption in (
            full_caption(plan.facts),
            partial_caption(plan.facts, generator("test", index)),
        ):
            assert caption.is_true_of(plan.facts)
            tokens = sizes.tokenize([caption.text])
            assert scenes_text.UNKNOWN not in tokens and tokens.shape[1] < sizes.MAX_TOKENS
            captions.append(caption)
    # a full caption is specific: it hardly ever holds elsewhere
    full = captions[::2]
    held = sum(c.is_true_of(p.facts) for c in full for p in plans) - len(plans)
    assert held <= 2


def test_relations_in_captions_are_those_of_the_picture() -> None:
    for index in range(80):
        plan = plan_scene(2, index)
        things, seen = plan.layout.things, plan.seen
        match = re.search(
            r", a (\w+) (\w+) (\w+) left of a (\w+) (\w+) (\w+)", full_caption(plan.facts).text
        )
        if match is None:
            continue
        words = [(t.texture, t.colour, t.shape) for t in things]
        left = [seen.across[i] for i, w in enumerate(words) if w == match.groups()[:3]]
        right = [seen.across[i] for i, w in enumerate(words) if w == match.groups()[3:]]
        assert min(left) < max(right)


def test_words_and_their_numbers_agree() -> None:
    vocabulary = sizes.text_shape().vocabulary
    assert len(set(vocabulary)) == len(vocabulary)
    row = sizes.tokenize(["A photo of a jetty, at noon", "zebra"])
    read = [vocabulary[int(i)] for i in row[0]]
    assert read == ["a", "photo", "of", "a", "jetty", ",", "at", "noon"]
    assert row[1].tolist() == [scenes_text.UNKNOWN] + [scenes_text.PAD] * 7


def test_padding_does_not_change_a_caption_s_row() -> None:
    torch.manual_seed(0)
    tower = scenes_text.CaptionTower(sizes.text_shape()).eval()
    short = "a photo of a jetty"
    alone = tower(sizes.tokenize([short]))
    padded = tower(sizes.tokenize([short, f"{short} at night with two objects"]))
    torch.testing.assert_close(alone[0], padded[0])


def test_the_export_rebuilds_the_vision_tower(tmp_path) -> None:
    train(tmp_path, "--images", "16")
    path = tmp_path / "scenes-vit-test.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["vitscope"])
    assert header == json.loads(path.with_suffix(".json").read_text())
    tensors = load_file(path)
    assert all(value.dtype == torch.float16 for value in tensors.values())
    vision = VisionTransformer(**header["vision"])
    inner = {k.removeprefix("vision."): v.float() for k, v in tensors.items() if "vision." in k}
    vision.load_state_dict(inner, strict=True)
    trained = networks.DualEncoder(sizes.SIZES["test"])
    trained.load_state_dict(torch.load(tmp_path / "checkpoint.pt")["model"])
    images = torch.from_numpy(np.stack([render_scene(0, i, 32).image for i in range(4)]))
    mean, std = (torch.tensor(header["normalisation"][k])[:, None, None] for k in ("mean", "std"))
    with torch.inference_mode():
        ours = vision.eval()((images / 255 - mean) / std)
        theirs = trained.eval().vision(trained.normalise(images))
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)
    assert header["text"]["vocabulary"] == list(sizes.text_shape().vocabulary)
    assert header["images_seen"] == 16


def test_the_default_s_export_fits_the_package() -> None:
    model = networks.DualEncoder(sizes.SIZES["s"])
    assert sum(p.numel() for p in model.parameters()) * 2 < 12e6
    assert model.vision.num_prefix_tokens == 1
    assert not any("ls1" in name or "reg_token" in name for name, _ in model.named_parameters())


def test_norms_are_those_after_each_block() -> None:
    torch.manual_seed(0)
    model = networks.DualEncoder(sizes.SIZES["test"]).eval()
    chunks = evaluation.held_out(1, 16, 32)
    seen: list[torch.Tensor] = []
    for block in model.vision.blocks:
        block.register_forward_hook(lambda _m, _i, out: seen.append(out[:, 1:].norm(dim=-1)))
    rows = evaluation.patch_norms(model, chunks)
    for row, norms in zip(rows, seen, strict=True):
        assert row["q0.5"] == pytest.approx(float(norms.median()), rel=1e-2)
        assert row["q1"] == pytest.approx(float(norms.max()), rel=1e-5)


def test_accuracies_are_shares_of_held_out_scenes() -> None:
    torch.manual_seed(0)
    model = networks.DualEncoder(sizes.SIZES["test"])
    chunks = evaluation.held_out(1, 70, 32)
    assert [len(c.images) for c in chunks] == [64, 6]
    with torch.no_grad():
        for head in model.label_heads.values():
            head.weight.zero_()
            head.bias.zero_()
            head.bias[0] = 1  # always the first class
    measured = evaluation.evaluate(model, chunks)
    for name in LABEL_CLASSES:
        share = np.mean([int(v) == 0 for c in chunks for v in c.labels[name]])
        assert measured["accuracy"][name] == pytest.approx(share)
    assert measured["n_scenes"] == 70
