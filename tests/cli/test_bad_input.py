"""What a user sees who gives bad input: one line that says what is wrong, exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.cli.command_line import QUICK, CommandLine, write_pictures

from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import save_sae


def assert_one_line(vitscope: CommandLine, *arguments: str, says: str) -> None:
    ended = vitscope(*arguments)
    assert (ended.code, ended.out) == (2, ""), ended.err
    # stages that had finished say so; the error itself is the last line, and the only other one
    *before, last = ended.err.splitlines()
    assert all(line[0] in "▸✓·" for line in before), ended.err
    assert last.startswith("error: ")
    assert says in last


STUDIES = {
    "it does not exist": ("run nowhere.toml", "", "nowhere.toml does not exist; give the path"),
    "it is a folder": ("run pictures", "", "pictures is a folder without study.toml; give the"),
    "no study at all": ("run", "", "give a study, a run directory, or --model and --images"),
    "a model without images": ("run --model planted", "", "or --model and --images"),
    "a study and a model": (
        "run study.toml --model planted", QUICK, "give a study, or --model and --images, not both",
    ),
    "an override without a value": (
        "run study.toml --set scope.gamma", QUICK, "--set 'scope.gamma': give KEY=VALUE, such as",
    ),
    "a mistyped override": (
        "run study.toml --set scope.gama=0.3", QUICK,
        "unknown key 'scope.gama' (did you mean 'gamma'?)",
    ),
    "an override out of range": (
        "run study.toml --set scope.gamma=3", QUICK, "scope.gamma: input should be less than",
    ),
    "an override of a group": (
        "run study.toml --set scope.gamma.x=3 --set scope.gamma=0.1 --set scope.gamma.x=3", QUICK,
        "gamma is a setting, not a group of them",
    ),
    "not TOML": ("run study.toml", "[images\n", "study.toml is not a TOML file: Expected ']'"),
    "empty": ("run study.toml", "", "study.toml: images: required, but not given"),
    "mistyped key": (
        "run study.toml", QUICK.replace("top_images", "top_image"),
        "unknown key 'scope.top_image' (did you mean 'top_images'?)",
    ),
    "mistyped group": (
        "run study.toml", QUICK.replace("[scope]", "[scop]"), "'scop' (did you mean 'scope'?)",
    ),
    "key of another group": (
        "run study.toml", QUICK.replace("[sae]\n", "[sae]\ntop_images = 3\n"),
        "unknown key 'sae.top_images' (did you mean 'scope.top_images'?)",
    ),
    "wrong type": (
        "run study.toml", QUICK.replace("k = 3", 'k = "three"'),
        "sae.k: input should be a valid integer",
    ),
    "out of range": (
        "run study.toml", QUICK.replace("k = 3", "k = 0"), "sae.k: input should be greater than",
    ),
    "K beyond the dictionary": (
        "run study.toml", QUICK.replace("k = 3", "k = 500"),
        "k = 500 exceeds the dictionary's 192 features",
    ),
    "unknown backbone": (
        "run study.toml", QUICK + '[backbone]\nname = "clip-b61"\n',
        "unknown backbone 'clip-b61' (did you mean 'clip-b16'?)",
    ),
    "planted with a layer": (
        "run study.toml", QUICK + "[backbone]\nlayer = 2\n",
        "backbone.layer means nothing for 'planted'; remove it",
    ),
    "layer out of range": (
        "run study.toml", QUICK + '[backbone]\nname = "clip-b16"\nlayer = 13\n',
        "backbone.layer = 13, but clip-b16 has 12 blocks",
    ),
    "resolution off the grid": (
        "run study.toml", QUICK + '[backbone]\nname = "clip-b16"\nresolution = 225\n',
        "backbone.resolution = 225 is no multiple of 16",
    ),
    "weights missing": (
        "run study.toml", QUICK + '[backbone]\nname = "clip-b16"\nweights = "clip.pt"\n',
        "clip.pt does not exist; give the path of a checkpoint file",
    ),
    "shift too large": (
        "run study.toml", QUICK.replace("[scope]", "[scope]\nshift = 13"),
        "scope.shift = 13 leaves no overlap of at least 2×2 patches on a 14×14 grid; use 1 to 12",
    ),
    "no such device": (
        "run study.toml", QUICK + '[backbone]\ndevice = "gpu"\n',
        "backbone.device = 'gpu' cannot be used",
    ),
    "a stage too early": (
        "extract study.toml --out fresh", QUICK,
        "has not finished in",
    ),
    "out below a file": ("run study.toml --out study.toml/run", QUICK, "Not a directory"),
    "out is a file": ("run study.toml --out study.toml", QUICK, "cannot write in"),
    "demo below a file": ("demo --out study.toml/run", QUICK, "Not a directory"),
    "selfcheck below a file": (
        "selfcheck --only oracle --out study.toml/run", QUICK, "Not a directory",
    ),
    "selfcheck without images": (
        "selfcheck --only oracle --images pitcures", "", "does not exist; did you mean",
    ),
    "no such selfcheck": ("selfcheck --only orcale", "", "no selfcheck 'orcale'; there are"),
    "score without anything": ("score", "", "--model, --sae and --images are all needed"),
    "score with both": ("score study.toml --model planted", QUICK, "give a study, or --model"),
    "score of a mistyped model": (
        "score --model plantd --sae sae --images pictures", "",
        "unknown backbone 'plantd' (did you mean 'planted'?)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STUDIES)
def test_a_bad_study_is_one_line(vitscope: CommandLine, case: str) -> None:
    command, text, says = STUDIES[case]
    write_pictures(vitscope.folder / "pictures", 2)
    vitscope.write(text)
    assert_one_line(vitscope, *command.split(), says=says)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("backbone", ["planted", "clip-b16"])
def test_cuda_without_cuda_is_one_line(vitscope: CommandLine, backbone: str) -> None:
    write_pictures(vitscope.folder / "pictures", 2)
    study = vitscope.write(QUICK + f'[backbone]\nname = "{backbone}"\ndevice = "cuda"\n')
    assert_one_line(vitscope, "run", study, says="backbone.device = 'cuda' cannot be used")


def _text_files(folder: Path) -> None:
    folder.mkdir()
    for name in ("a.txt", "b.TXT", "c.md"):
        (folder / name).write_text("no picture")


def _half_of_them_cut(folder: Path) -> None:
    for index, path in enumerate(write_pictures(folder, 30)):
        photo = path.with_suffix(".jpg")
        Image.open(path).save(photo)
        path.unlink()
        if index < 15:
            photo.write_bytes(photo.read_bytes()[:700])


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "does not exist; "),
    "empty": (Path.mkdir, "holds no images: no files at all"),
    "text files": (
        _text_files,
        "holds no images: 3 files, none with an image suffix: .txt (2), .m",
    ),
    "half of them cut": (_half_of_them_cut, "15 of 30 images cannot be used"),
}


@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("key", ["train", "eval"])
def test_a_bad_folder_of_images_is_one_line(vitscope: CommandLine, case: str, key: str) -> None:
    make, says = FOLDERS[case]
    write_pictures(vitscope.folder / "pictures", 2)
    make(vitscope.folder / "photographs")
    name = QUICK.replace('train = "pictures"', 'train = "photographs"')
    both = QUICK.replace("[activations]", 'eval = "photographs"\n[activations]')
    study = vitscope.write(name if key == "train" else both)
    assert_one_line(vitscope, "run", study, says=says)


def test_the_first_ten_of_many_bad_pictures_are_named(vitscope: CommandLine) -> None:
    _half_of_them_cut(vitscope.folder / "pictures")
    study = vitscope.write(QUICK)
    ended = vitscope("run", study)
    named = [f"scene-{n:04d}.jpg" for n in range(15)]
    assert [name in ended.err for name in named] == [True] * 10 + [False] * 5
    assert "and 5 more. Remove or repair them, or raise max_skipped" in ended.err
    listed = (vitscope.folder / "runs/study/skipped.csv").read_text()
    assert all(name in listed for name in named), "all of them, though the run has failed"


def _sae(width: int) -> SparseAutoencoder:
    rows = torch.eye(width)[:8]
    bias = torch.zeros(width)
    return SparseAutoencoder(rows.T.contiguous(), torch.zeros(8), rows, bias, 1.0, 2)


def _card_alone(folder: Path) -> None:
    save_sae(folder, _sae(192))
    (folder / "sae.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    save_sae(folder, _sae(192))
    weights = folder / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


SAES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "holds no SAE"),
    "another folder": (Path.mkdir, "holds no SAE"),
    "card alone": (_card_alone, "holds no SAE: sae.safetensors missing"),
    "another width": (
        lambda folder: save_sae(folder, _sae(64)),
        "the SAE takes activations of width 64, but planted gives width 192",
    ),
    "cut weights": (_cut_weights, "sae.safetensors is damaged"),
}


@pytest.mark.parametrize("case", SAES)
def test_a_bad_sae_is_one_line_whichever_way_it_is_given(vitscope: CommandLine, case: str) -> None:
    make, says = SAES[case]
    write_pictures(vitscope.folder / "pictures", 2)
    make(vitscope.folder / "mine")
    study = vitscope.write('[images]\ntrain = "pictures"\n[sae]\npath = "mine"\n')
    assert_one_line(vitscope, "run", study, says=says)
    given = ("--model", "planted", "--sae", "mine", "--images", "pictures")
    assert_one_line(vitscope, "score", *given, says=says)
    assert not (vitscope.folder / "runs/study/images").exists(), "refused before any work"


def test_one_bad_picture_among_forty_is_left_out_and_said(vitscope: CommandLine) -> None:
    photos = write_pictures(vitscope.folder / "pictures", 40)
    bad = vitscope.folder / "pictures" / "broken.jpg"
    Image.open(photos[0]).save(bad)
    bad.write_bytes(bad.read_bytes()[:500])
    ended = vitscope("run", vitscope.write(QUICK))
    assert ended.code == 0, ended.err
    assert "40 train, 1 skipped (skipped.csv)" in ended.out
    rows = (vitscope.folder / "runs/study/skipped.csv").read_text().splitlines()
    assert rows[0] == "id,reason"
    assert len(rows) == 2
    assert rows[1].startswith("broken.jpg,truncated")
    assert "broken.jpg" in (vitscope.folder / "runs/study/report.html").read_text()


@pytest.mark.parametrize(
    "command",
    [
        "bogus", "run study.toml --nope", "run a.toml b.toml", "demo --out", "scroe",
        "selfcheck --seed one", "selfcheck --seed -1", "models all",
    ],
)  # fmt: skip
def test_a_usage_error_is_exit_code_2(vitscope: CommandLine, command: str) -> None:
    vitscope.write(QUICK)
    ended = vitscope(*command.split())
    assert (ended.code, ended.out) == (2, "")
    assert "Error" in ended.err
    assert "Traceback" not in ended.err
    assert not (vitscope.folder / "runs").exists()
