"""A study on disk: read, resolved, written back, read again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitscope.embedded.files import shipped_sae
from vitscope.errors import ConfigError, SaeError
from vitscope.study import Study, dump_study, load_study, resolve_paths, study_of

WHOLE = """
name = "a \\"quoted\\" näme"
note = "two\\nlines"
seed = 7

[images]
train = "photos/train"
eval = "../eval.txt"
eval_limit = 100

[backbone]
name = "clip-b16"
weights = "clip.pt"
layer = 10

[sae]
path = "saes/one"

[scope]
gamma = 0.14
missing = "drop"

[outliers]
tau = 100.0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_relative_paths_start_from_the_studys_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "studies").mkdir()
    write(tmp_path / "studies", WHOLE)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given_as in (tmp_path / "studies" / "study.toml", Path("../studies/study.toml")):
        study = load_study(given_as)
        base = tmp_path / "studies"
        assert study.images.train == base / "photos/train"
        assert study.images.eval is not None
        assert study.images.eval.resolve() == tmp_path / "eval.txt"
        assert study.backbone.weights == base / "clip.pt"
        assert study.sae.path == base / "saes/one"


def test_absolute_paths_and_the_home_folder_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    study = load_study(write(tmp_path, '[images]\ntrain = "/data/a"\neval = "~/b"\n'))
    assert study.images.train == Path("/data/a")
    assert study.images.eval == Path("/home/someone/b")
    assert study.sae.path is None


def test_what_is_written_reads_as_it_was(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, WHOLE))
    assert (study.name, study.note, study.seed) == ('a "quoted" näme', "two\nlines", 7)
    (tmp_path / "other").mkdir()
    again = load_study(write(tmp_path / "other", dump_study(study)))
    assert again == study, "resolved paths do not move with the file"
    assert dump_study(again) == dump_study(study)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(
    name=TEXT,
    note=TEXT,
    seed=st.integers(0, 2**63 - 1),
    train=TEXT.filter(lambda text: not text.startswith("~")),
    gamma=st.none() | st.floats(0, 1),
    tau=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    limit=st.none() | st.integers(1, 10**9),
    rate=st.floats(1e-8, 1.0),
)
def test_any_study_survives_the_round_trip(
    name: str, note: str, seed: int, train: str, gamma: float | None, tau: float | None,
    limit: int | None, rate: float, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    values = {
        "name": name,
        "note": note,
        "seed": seed,
        "images": {"train": train, "train_limit": limit},
        "sae": {"learning_rate": rate},
        "scope": {"gamma": gamma},
        "outliers": {"tau": tau},
    }
    study = resolve_paths(Study.parse(values, source="test"), Path("/base"))
    folder = tmp_path_factory.getbasetemp()
    assert load_study(write(folder, dump_study(study))) == study


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "images: required, but not given"),
        ("[images]\n", "images.train: required, but not given"),
        ('[images]\ntrian = "a"\n', "unknown key 'images.trian' (did you mean 'train'?)"),
        ('[images]\ntrain = "a"\n[scope]\ngama = 1\n', "(did you mean 'gamma'?)"),
        ('gamma = 1\n[images]\ntrain = "a"\n', "did you mean 'scope.gamma'?"),
        ('[images]\ntrain = "a"\n[scope]\ngamma = 1.5\n', "scope.gamma: input should be less"),
        ('[images]\ntrain = "a"\n[scope]\nshift = "one"\n', "scope.shift: input should be a valid"),
        ('[images]\ntrain = 3\n', "images.train: input is not a valid path"),
        ('images = "photos"\n', "images: a group of settings is expected (got 'photos')"),
        ("[images\n", "is not a TOML file"),
        ("a = 1\na = 2\n", "is not a TOML file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml does not exist; give the path of a"):
        load_study(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"is a folder without study\.toml; give the path"):
        load_study(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary.toml is not a TOML file"):
        load_study(tmp_path / "binary.toml")


def test_a_study_from_options_starts_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of("planted", Path("photos"), sae=Path("saes/mine"))
    assert study.sae.path == tmp_path / "saes/mine"
    assert study.images.train == tmp_path / "photos"
    assert study.name == "planted-saes-mine"


def test_scenes_are_no_path_and_other_runs_are(tmp_path: Path) -> None:
    study = load_study(
        write(
            tmp_path,
            "[images]\ntrain = 'scenes:9?seed=2'\neval = 'held-out'\n[beside]\nruns = ['other']\n",
        )
    )
    assert study.images.train == Path("scenes:9?seed=2")
    assert study.images.eval == tmp_path / "held-out"
    assert study.beside.runs == (tmp_path / "other",)
    again = load_study(write(tmp_path, dump_study(study)))
    assert again == study


def test_the_shipped_sae_is_that_of_the_studys_backbone(tmp_path: Path) -> None:
    text = "[images]\ntrain = 'scenes:9'\n[sae]\npath = 'shipped'\n[backbone]\nname = '{}'\n"
    for name in ("scenes-vit", "scenes-vit-untrained"):
        study = load_study(write(tmp_path, text.format(name)))
        assert study.sae.path == shipped_sae(name) and (shipped_sae(name) / "sae.json").is_file()
    with pytest.raises(SaeError, match="no SAE for 'clip-b16' comes with the package, only for"):
        load_study(write(tmp_path, text.format("clip-b16")))


def test_paths_of_probes_start_from_the_study_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").touch()
    text = """
[images]
train = "scenes:9"
[probes.classification]
train = "imagenet"
[probes.depth]
train = "scenes:9?seed=3"
validation = "nyu/labeled.mat"
splits = "nyu/splits.mat"
[probes.zeroshot]
images = "imagenet"
prompts = "imagenet"
tower_weights = "clip.pt"
"""
    probes = load_study(write(tmp_path, text)).probes
    assert probes.classification.train == probes.zeroshot.images == tmp_path / "imagenet"
    assert probes.depth.train == Path("scenes:9?seed=3")
    assert probes.depth.validation == tmp_path / "nyu/labeled.mat"
    assert probes.depth.splits == tmp_path / "nyu/splits.mat"
    assert probes.zeroshot.prompts == "imagenet", "built in, and no folder"
    assert probes.zeroshot.tower_weights == str(tmp_path / "clip.pt")
    own = text.replace('prompts = "imagenet"', 'prompts = "mine.toml"').replace("clip.pt", "openai")
    found = load_study(write(tmp_path, own)).probes.zeroshot
    assert (found.prompts, found.tower_weights) == (tmp_path / "mine.toml", "openai")
    again = load_study(write(tmp_path, dump_study(load_study(write(tmp_path, own)))))
    assert again.probes.zeroshot == found
