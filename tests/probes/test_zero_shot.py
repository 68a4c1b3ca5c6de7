"""Zero-shot: open_clip's own answers, counts by hand, calibration in closed form, prompts."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.probes.probe_vit import SIDE, WIDTH, M, small_backbone, small_sae

from vitscope.backbones.backbone import BlockTokens
from vitscope.errors import ConfigError
from vitscope.images.loading import to_square
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.probes.prompts import Prompts, load_prompts
from vitscope.probes.settings import ClassificationSettings, DepthSettings
from vitscope.probes.text_towers import OpenClipTower, class_embeddings, load_open_clip
from vitscope.probes.zero_shot import (
    Predictions,
    flips_by_class,
    per_image,
    predict_all,
    predicted,
    reliability,
    summarise,
)
from vitscope.removal.remove import remove

open_clip = pytest.importorskip("open_clip")

VISION = {"image_size": 32, "layers": 2, "width": 24, "patch_size": 8, "head_width": 12}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def clip_tower() -> OpenClipTower:
    torch.manual_seed(0)
    return OpenClipTower(open_clip.CLIP(12, VISION, TEXT).eval(), open_clip.tokenize)


def test_sentences_and_images_land_where_open_clip_puts_them() -> None:
    tower = clip_tower()
    model = tower.model
    images = torch.randn(3, 3, 32, 32)
    texts = ["a photo of a kite.", "a drawing of a crane."]
    with torch.inference_mode():
        expected = model.encode_image(images, normalize=True)
        projection, model.visual.proj = model.visual.proj, None
        pooled = model.visual(images)
        model.visual.proj = projection
        torch.testing.assert_close(tower.project(pooled), expected)
        wanted = model.encode_text(open_clip.tokenize(texts), normalize=True)
    torch.testing.assert_close(tower.embed(texts), wanted)
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert tower.scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_a_timm_tower_keeps_its_projection_in_its_head() -> None:
    torch.manual_seed(0)
    vision = {"timm_model_name": "vit_tiny_patch16_224", "image_size": 224, "timm_pool": "avg"}
    for head, proj in (("none", "none"), ("linear", "linear")):
        settings = vision | {"timm_proj": proj}
        width = 192 if head == "none" else 20
        model = open_clip.CustomTextCLIP(width, settings, TEXT | {"width": 16}).eval()
        images = torch.randn(2, 3, 224, 224)
        tower = OpenClipTower(model, open_clip.tokenize)
        with torch.inference_mode():
            pooled = model.visual.trunk(images)
            expected = model.encode_image(images, normalize=True)
        torch.testing.assert_close(tower.project(pooled), expected)


def test_a_class_is_the_mean_of_its_sentences() -> None:
    tower = clip_tower()
    prompts = Prompts(("kite", "crane", "cat"), ("a photo of a {}.", "the {}"))
    rows = class_embeddings(tower, prompts)
    for label, name in enumerate(prompts.classes):
        both = [tower.embed([text])[0] for text in (f"a photo of a {name}.", f"the {name}")]
        mean = (both[0] + both[1]) / 2
        torch.testing.assert_close(rows[label], mean / mean.norm())


class Axes:
    """A tower whose sentences and images are known: class i is axis i."""

    scale = 3.0

    def embed(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(WIDTH)[[int(text) for text in texts]]

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pooled, dim=-1)


def test_every_variant_is_a_forward_pass_of_its_own() -> None:
    groups = {"some": list(range(0, M, 2)), "none": []}
    backbone, sae = small_backbone(), small_sae()
    made = FeatureExtraction(
        backbone, sae, groups, "classification", ClassificationSettings(), batch_size=3, workers=1
    )
    images = LabelledScenes("classification", 0, 7, seed=2, side=SIDE)
    prompts = Prompts(tuple(str(i) for i in range(16)), ("{}",))
    found, labels = predict_all(made, Axes(), prompts, images)
    assert [one.variant for one in found] == ["original", "some", "none"]
    assert labels.tolist() == [int(images.load(i)[1]) for i in range(7)]
    for one in found:
        for row in range(7):
            plain = backbone.tokens(to_square(images.load(row)[0], SIDE)[None])
            patch = plain.patch
            if one.variant == "some":
                patch = remove(sae, patch, groups["some"])
            pooled = backbone.resume(BlockTokens(patch, plain.prefix)).pooled[0]
            logits = 3.0 * pooled[:16] / pooled.norm()
            share = logits.double().softmax(0)
            assert one.likeliest[row].tolist() == share.argsort(descending=True)[:5].tolist()
            assert one.probability[row] == pytest.approx(float(share.max()), rel=1e-4)
            assert one.of_label[row] == pytest.approx(float(share[labels[row]]), rel=1e-4)
    assert not np.array_equal(found[0].probability, found[1].probability)
    summary = summarise(found, labels)
    assert (summary[0].flips, summary[2].flips) == (0, 0)
    with pytest.raises(ConfigError, match="prompts name 2 classes"):
        predict_all(made, Axes(), Prompts(("0", "1"), ("{}",)), images)
    depth = FeatureExtraction(backbone, sae, groups, "depth", DepthSettings())
    with pytest.raises(ConfigError, match="the task is depth"):
        predict_all(depth, Axes(), prompts, images)


def by_hand(variant: str, guesses: list[int]) -> Predictions:
    """Predictions of four classes, half sure of each guess."""
    likeliest = np.array([[g, (g + 1) % 4, (g + 2) % 4, (g + 3) % 4] for g in guesses])
    half = np.full(len(guesses), 0.5)
    return Predictions(variant, likeliest, half, half)


def test_flips_are_counted_and_split_by_what_was_right() -> None:
    labels = np.array([0, 1, 2, 3, 3])
    before, after = by_hand("original", [0, 1, 1, 0, 3]), by_hand("x", [0, 2, 2, 1, 3])
    plain, edited = summarise([before, after], labels)
    assert (plain.top1, plain.top5, plain.flips) == (0.6, 1.0, 0)
    assert (edited.flips, edited.flips_lost, edited.flips_won) == (3, 1, 1)
    assert edited.top1 == 0.6 and edited.confidence == 0.5
    assert edited.calibration.expected_error == pytest.approx(0.1)
    table = flips_by_class([before, after], labels, 4)
    assert table["variant"] == ["original"] * 4 + ["x"] * 4
    assert list(table["n_images"][4:]) == [1, 1, 1, 2]
    assert list(table["n_flips"][4:]) == [0, 1, 1, 1]
    assert list(table["n_right_before"][4:]) == [1, 1, 0, 1]
    assert list(table["n_right"][4:]) == [1, 0, 1, 1]
    rows = per_image([before, after], labels, ["a", "b", "c", "d", "e"])
    assert rows["image_id"][5:] == ["a", "b", "c", "d", "e"]
    assert list(rows["predicted"][5:]) == [0, 2, 2, 1, 3]
    with pytest.raises(ConfigError, match="3 labels for 5 predictions of 'original'"):
        summarise([before], labels[:3])


def test_top_5_needs_more_than_five_classes_to_say_anything() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    labels = np.arange(50) % 9
    fields = {name: v.numpy() for name, v in predicted(logits, torch.from_numpy(labels)).items()}
    (summary,) = summarise([Predictions("a", **fields)], labels)
    order = logits.argsort(1, descending=True).numpy()
    assert summary.top5 == (order[:, :5] == labels[:, None]).any(1).mean() < 1
    assert summary.top1 == (order[:, 0] == labels).mean()


def test_calibration_is_the_gap_between_sureness_and_accuracy() -> None:
    confidence = np.array([0.05, 0.12, 0.18, 0.95, 1.0, 0.2])
    right = np.array([False, True, False, True, True, True])
    found = reliability(confidence, right, bins=10)
    assert found.n == (1, 3, 0, 0, 0, 0, 0, 0, 0, 2)
    assert found.confidence[1] == pytest.approx(0.5 / 3) and found.accuracy[1] == pytest.approx(
        2 / 3
    )
    assert np.isnan(found.accuracy[4])
    expected = (1 * 0.05 + 3 * 0.5 + 2 * 0.025) / 6
    assert found.expected_error == pytest.approx(expected)
    random = np.random.default_rng(0)
    sure = random.uniform(0, 1, 200_000)
    honest = reliability(sure, random.random(200_000) < sure)
    assert honest.expected_error < 0.005
    assert reliability(sure, np.ones(200_000, bool)).expected_error == pytest.approx(0.5, abs=0.01)


def test_prompts_come_from_a_file_or_are_imagenets(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text('classes = ["kite", "crane"]\ntemplates = ["a photo of a {}."]\n')
    prompts = load_prompts(path)
    assert prompts.sentences(1) == ["a photo of a crane."]
    imagenet = load_prompts("imagenet")
    assert (len(imagenet.classes), len(imagenet.templates)) == (1000, 80)
    assert imagenet.classes[0] == "tench" and imagenet.sentences(0)[1].endswith("tench.")


BAD = {
    "classes = 3": "must be a list of texts",
    'classes = ["a"]\ntemplates = ["{}"]': "1 classes to tell apart",
    'classes = ["a", "a"]\ntemplates = ["{}"]': "class 'a' is there twice",
    'classes = ["a", "b"]\ntemplates = []': "no template",
    'classes = ["a", "b"]\ntemplates = ["a photo"]': "exactly once",
    'class = ["a", "b"]': "unknown key 'class'",
    "classes = [": "not a TOML file",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_prompts_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_prompts(path)
    with pytest.raises(ConfigError, match="cannot read prompts"):
        load_prompts(tmp_path / "none.toml")


def test_without_open_clip_the_command_that_installs_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="open_clip cannot load 'no-such-model'"):
        load_open_clip("no-such-model", None, torch.device("cpu"))
    for name in ("open_clip", "open_clip.zero_shot_metadata"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'vitscope\[text\]'"):
        load_prompts("imagenet")
    with pytest.raises(ConfigError, match=r"pip install 'vitscope\[text\]'"):
        load_open_clip("ViT-B-32", None, torch.device("cpu"))
