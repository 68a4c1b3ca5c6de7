"""Scenes: the same from (seed, index) anywhere, and labels that masks and depth bear out."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.embedded.labels import (
    AREA_GAP,
    DEPTH_GAP_M,
    MIDDLE_GAP,
    MIN_AREA,
    REFERENCE_SIDE,
    SIDE_GAP,
    label_indices,
)
from vitscope.embedded.layout import SceneSettings
from vitscope.embedded.scene import Scene, plan_scene, render_plan, render_scene
from vitscope.embedded.tracing import FAR_M
from vitscope.embedded.vocabulary import (
    COUNTS,
    FIRST_SHAPE,
    LABEL_CLASSES,
    MASK_CLASSES,
    PLACE_OF,
    SHAPES,
)

SIDE = 112
ANY_SCENE = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))

DIGEST = """
import hashlib
from vitscope.embedded.scene import render_scene
digest = hashlib.sha256()
for index in range(4):
    scene = render_scene(3, index, 40)
    for array in (scene.image, scene.mask, scene.instances, scene.depth):
        digest.update(array.tobytes())
    digest.update(scene.caption.encode())
print(digest.hexdigest())
"""

WITHOUT_COMPILER = """
import sys
import numpy as np
from vitscope.embedded.scene import render_scene
scenes = [render_scene(3, index, 20) for index in range(2)]
np.savez(sys.argv[1], **{f"{k}{i}": getattr(s, k) for i, s in enumerate(scenes)
                         for k in ("image", "mask", "depth")})
"""


def shape_of(scene: Scene, instance: int) -> str:
    return MASK_CLASSES[int(scene.mask[scene.instances == instance][0])]


def measures(scene: Scene) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """Centroid's column, least depth and area of each instance, from its pixels alone."""
    side = scene.mask.shape[0]
    columns = np.broadcast_to(np.arange(side) + 0.5, (side, side))
    found = [int(i) for i in np.unique(scene.instances) if i > 0]
    across = {i: float(columns[scene.instances == i].mean()) / side for i in found}
    nearest = {i: float(scene.depth[scene.instances == i].min()) for i in found}
    return across, nearest, {i: float((scene.instances == i).mean()) for i in found}


def test_another_process_renders_the_same_bytes() -> None:
    digest = hashlib.sha256()
    for index in range(4):
        scene = render_scene(3, index, 40)
        for array in (scene.image, scene.mask, scene.instances, scene.depth):
            digest.update(array.tobytes())
        digest.update(scene.caption.encode())
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest.hexdigest()


def test_compiled_loops_compute_what_python_does(tmp_path) -> None:
    file = tmp_path / "plain.npz"
    subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(file)],
        check=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    with np.load(file) as plain:
        for i in range(2):
            scene = render_scene(3, i, 20)
            assert (scene.mask == plain[f"mask{i}"]).all()
            np.testing.assert_allclose(scene.depth, plain[f"depth{i}"], rtol=1e-6)
            # a library's sine or power may round the last bit otherwise
            difference = np.abs(scene.image.astype(int) - plain[f"image{i}"])
            assert difference.max() <= 1


def test_seed_and_index_both_matter() -> None:
    here = render_scene(0, 0, 32).image
    assert (render_scene(0, 1, 32).image != here).any()
    assert (render_scene(1, 0, 32).image != here).any()


@settings(max_examples=25, deadline=None)
@given(ANY_SCENE)
def test_arrays_have_the_promised_shapes_and_ranges(which) -> None:
    scene = render_scene(which[0], which[1], 48)
    assert scene.image.shape == (3, 48, 48) and scene.image.dtype == np.uint8
    for array in (scene.mask, scene.instances):
        assert array.shape == (48, 48) and array.dtype == np.uint8
    assert scene.depth.shape == (48, 48) and scene.depth.dtype == np.float32
    assert scene.mask.min() >= 1 and scene.mask.max() < len(MASK_CLASSES)
    assert scene.depth.min() > 0 and scene.depth.max() <= FAR_M
    assert ((scene.instances > 0) == (scene.mask >= FIRST_SHAPE)).all()


@settings(max_examples=20, deadline=None)
@given(ANY_SCENE)
def test_another_resolution_shows_the_same_scene(which) -> None:
    plan = plan_scene(which[0], which[1])
    coarse, fine = render_plan(plan, 50), render_plan(plan, 150)
    # the middle pixel of each 3 by 3 block casts the coarse picture's very ray
    assert (fine.mask[1::3, 1::3] == coarse.mask).all()
    assert (fine.instances[1::3, 1::3] == coarse.instances).all()
    np.testing.assert_allclose(fine.depth[1::3, 1::3], coarse.depth, rtol=1e-5)
    assert fine.labels == coarse.labels and fine.caption == coarse.caption


@settings(max_examples=60, deadline=None)
@given(ANY_SCENE)
def test_labels_are_what_mask_and_depth_say(which) -> None:
    scene = render_scene(which[0], which[1], REFERENCE_SIDE)
    found = [int(i) for i in np.unique(scene.instances) if i > 0]
    across, nearest, area = measures(scene)
    first = min(nearest, key=lambda i: nearest[i])
    labels = scene.labels
    assert labels["leftmost_shape"] == shape_of(scene, min(across, key=lambda i: across[i]))
    assert labels["nearest_shape"] == shape_of(scene, first)
    assert labels["nearest_side"] == ("left" if across[first] < 0.5 else "right")
    assert labels["largest_shape"] == shape_of(scene, max(area, key=lambda i: area[i]))
    assert labels["count"] == COUNTS[len(found) - 2]
    shown = {shape_of(scene, i) for i in found}
    for shape in SHAPES:
        assert labels[f"has_{shape}"] == ("yes" if shape in shown else "no")
    assert labels["place"] == PLACE_OF[labels["ground"], labels["backdrop"]]
    assert MASK_CLASSES.index(labels["ground"]) in scene.mask
    left, near, large = (sorted(m.values()) for m in (across, nearest, area))
    assert min(area.values()) >= MIN_AREA
    assert left[1] - left[0] >= SIDE_GAP - 1e-9
    assert near[1] - near[0] >= DEPTH_GAP_M - 1e-5
    assert large[-1] / large[-2] >= AREA_GAP - 1e-9
    assert abs(across[first] - 0.5) >= MIDDLE_GAP - 1e-9


def test_labels_hold_at_other_resolutions_too() -> None:
    n, wrong = 150, 0
    for index in range(n):
        scene = render_scene(21, index, SIDE)
        across, nearest, area = measures(scene)
        labels = scene.labels
        wrong += (
            labels["leftmost_shape"] != shape_of(scene, min(across, key=lambda i: across[i]))
            or labels["nearest_shape"] != shape_of(scene, min(nearest, key=lambda i: nearest[i]))
            or labels["largest_shape"] != shape_of(scene, max(area, key=lambda i: area[i]))
            or labels["count"] != COUNTS[len(area) - 2]
        )
    assert wrong <= 1  # about one scene in a thousand


def test_backdrops_show_their_own_surfaces() -> None:
    telling = {"room": "ceiling", "court": "wall", "mountains": "mountain", "skyline": "building"}
    shown = dict.fromkeys(telling, 0)
    foreign = {"room": {"mountain", "building"}, "court": {"ceiling", "mountain", "building"}}
    foreign |= {k: {"ceiling", "wall", "door", "window"} for k in ("mountains", "skyline")}
    for index in range(60):
        scene = render_scene(11, index, 48)
        classes = {MASK_CLASSES[int(i)] for i in np.unique(scene.mask)}
        backdrop = scene.labels["backdrop"]
        shown[backdrop] += telling[backdrop] in classes
        assert not classes & foreign[backdrop]
        grounds = classes & {"planks", "tiles", "grass", "sand"}
        assert grounds == {scene.labels["ground"]}
    assert all(n >= 5 for n in shown.values())


def test_labels_are_balanced_and_factors_independent() -> None:
    plans = [plan_scene(5, index) for index in range(640)]
    rows = [label_indices(plan.labels) for plan in plans]
    for name in ("place", "ground", "backdrop", "time"):
        n = len(LABEL_CLASSES[name])
        counts = np.bincount([row[name] for row in rows], minlength=n)
        chi2 = ((counts - 640 / n) ** 2 / (640 / n)).sum()
        assert chi2 < 2.5 * n + 10, (name, counts)
    assert {row["count"] for row in rows} >= {0, 1, 2, 3, 4}


def test_settings_bound_objects_and_their_size() -> None:
    few = SceneSettings(max_objects=2)
    assert {plan_scene(1, i, few).labels["count"] for i in range(20)} == {"two"}
    large = [
        render_scene(1, i, 48, SceneSettings(max_objects=2, object_scale=1.4)) for i in range(20)
    ]
    small = [
        render_scene(1, i, 48, SceneSettings(max_objects=2, object_scale=0.9)) for i in range(20)
    ]
    assert sum((s.instances > 0).mean() for s in large) > 1.5 * sum(
        (s.instances > 0).mean() for s in small
    )


def test_noise_can_be_switched_off() -> None:
    quiet, usual = (render_scene(2, 7, 64, SceneSettings(noise=n)).image for n in (0.0, 1.0))
    difference = usual.astype(float) - quiet
    assert 1.0 < difference.std() < 8.0
    assert abs(difference.mean()) < 0.5


def test_a_side_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="side must be at least 1"):
        render_scene(0, 0, 0)
