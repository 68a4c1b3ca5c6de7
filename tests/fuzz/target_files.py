"""Valid files of every kind that is read from outside, small, each written into a folder."""

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.sae.formats.cases import FIXTURES
from tests.sae.formats.layouts import random_parts, write_prisma, write_saev
from tests.stages.small_study import small_study

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.embedded.files import WEIGHT_FILES
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageFolder
from vitscope.pipeline import run_study
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import save_sae
from vitscope.store.parts import save_part
from vitscope.store.tables import write_table
from vitscope.study import dump_study
from vitscope.tokens.encoding import LoaderOptions
from vitscope.tokens.extraction import extract_tokens
from vitscope.tokens.sampling import ActivationSettings

SIDE = 12
WNIDS = ("n01440764", "n01443537", "n01484850")

PROMPTS = """classes = ["hen", "cock", "goldfish"]
templates = ["a photo of a {}.", "a drawing of the {}."]
"""

MAPPING = """weights = "weights.safetensors"
activation = "topk"
k = 4
subtract_b_dec = false
token_norm = "layer_norm"
epsilon = 1e-5
model = "any"
hook = "blocks.10.hook_resid_post"

[tensors]
w_enc = "W_enc"
w_dec = "W_dec.T"
b_enc = "b_enc"
b_dec = "b_dec"
"""


def _random() -> np.random.Generator:
    return np.random.default_rng(3)


def study_file(folder: Path) -> None:
    text = dump_study(small_study(folder / "pictures"))
    (folder / "study.toml").write_text(text)


def picture_files(folder: Path) -> None:
    """One picture in every format that is read, colours, grey, palette and 16 bits."""
    rgb = Image.fromarray(_random().integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "a.jpg", exif=exif)
    rgb.convert("CMYK").save(folder / "b.jpg")
    rgb.save(folder / "c.jpg", progressive=True)
    rgb.save(folder / "a.png")
    rgb.convert("RGBA").save(folder / "b.png")
    rgb.quantize(8).save(folder / "c.png", transparency=1)
    Image.fromarray(_random().integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)).save(
        folder / "d.png"
    )
    for name in ("a.webp", "a.bmp", "a.gif", "a.tif", "a.ppm"):
        rgb.save(folder / name)
    rgb.save(folder / "b.tif", compression="tiff_lzw")
    rgb.convert("L").save(folder / "b.ppm")


def image_list(folder: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(folder / "a.png")
    (folder / "list.txt").write_text("# mine\na.png\n../b.jpg\n\nclass/c.jpeg\n")


def prompts_file(folder: Path) -> None:
    (folder / "prompts.toml").write_text(PROMPTS)


def sae_fixture(name: str, folder: Path) -> None:
    shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)


def saev_sae(folder: Path) -> None:
    header = {"schema": 5, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": 3}}}}
    write_saev(folder / "sae.pt", header, random_parts(2))


def prisma_sae(folder: Path) -> None:
    write_prisma(folder, random_parts(2))


def mapped_sae(folder: Path) -> None:
    parts = random_parts(2)
    parts["W_dec"] = parts["W_dec"].T.contiguous()
    save_file(parts, folder / "weights.safetensors")
    (folder / "mapping.toml").write_text(MAPPING)


def own_sae(folder: Path) -> None:
    rows = torch.eye(8)[:6]
    bias = torch.zeros(8)
    save_sae(folder, SparseAutoencoder(rows.T.contiguous(), torch.zeros(6), rows, bias, 1.0, 2))


def weight_files(folder: Path) -> None:
    """One small state dict as safetensors, both kinds of pickle, TorchScript and shards."""
    layer = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    state = dict(layer.state_dict())
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "b.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "c.pt")
    torch.save(state, folder / "d.pt", _use_new_zipfile_serialization=False)
    sharded = folder / "sharded"
    sharded.mkdir()
    save_file(state, sharded / "model-00001-of-00001.safetensors")
    places = ", ".join(f'"{key}": "model-00001-of-00001.safetensors"' for key in state)
    (sharded / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{places}}}}}')


def reference_header(folder: Path) -> None:
    shutil.copy(
        WEIGHT_FILES["scenes-vit-s"],
        folder / "reference.safetensors",
    )


def transformers_folder(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 8}')
    save_file({"x": torch.zeros(2)}, folder / "model-00001-of-00001.safetensors")
    index = '{"weight_map": {"x": "model-00001-of-00001.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)


def extraction(folder: Path) -> None:
    """Three shards of tokens and their manifest."""
    write_generated_images(folder / "pictures", 3, seed=1, side=112)
    extract_tokens(
        PlantedBackbone(),
        list(ImageFolder(folder / "pictures")),
        folder / "activations",
        ActivationSettings(),
        LoaderOptions(batch_size=2, workers=1),
        seed=0,
        fingerprint="one",
    )
    shutil.rmtree(folder / "pictures")


def probe_cache(folder: Path) -> None:
    parts = {"target": np.zeros(2, np.int64), "original": np.zeros((2, 3), np.float16)}
    for index in range(2):
        save_part(folder / "cache", "one", index, parts)


def table_file(folder: Path) -> None:
    columns = {"feature": np.arange(40), "cds": np.linspace(0, 1, 40), "id": ["a"] * 40}
    write_table(folder / "table.parquet", columns, {"site": {"layer": 3}})


def nyud_mat(folder: Path) -> None:
    """The labelled data set in small, as MATLAB keeps it: HDF5, axes reversed."""
    with h5py.File(folder / "labeled.mat", "w") as file:
        file["images"] = _random().integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)
        file["depths"] = _random().uniform(0.7, 9.9, (4, 6, 5)).astype(np.float32)
    columns = {"trainNdxs": np.array([[2], [4]]), "testNdxs": np.array([[1], [3]])}
    scipy.io.savemat(folder / "splits.mat", columns)


def nyud_pairs(folder: Path) -> None:
    for n in range(2):
        Image.new("RGB", (6, 5), (n, 9, 9)).save(folder / f"{n}.png")
        depth = _random().integers(700, 9900, (5, 6)).astype(np.uint16)
        Image.fromarray(depth).save(folder / f"{n}_depth.png")
    with (folder / "nyu2_train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([f"data/{n}.png", f"data/{n}_depth.png"] for n in range(2))


def ade20k(folder: Path) -> None:
    for kind, mode in (("images", "RGB"), ("annotations", "L")):
        below = folder / kind / "validation"
        below.mkdir(parents=True)
        suffix = "jpg" if kind == "images" else "png"
        Image.new(mode, (6, 5)).save(below / f"ADE_val_1.{suffix}")
    names = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t2\t3\twall\n2\t0.1\t2\t3\tsky\n"
    (folder / "objectInfo150.txt").write_text(names)


def imagenet(folder: Path) -> None:
    for wnid in WNIDS:
        (folder / "train" / wnid).mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(folder / "train" / wnid / "a.JPEG")
    (folder / "val").mkdir()
    for n in (1, 2):
        Image.new("RGB", (6, 5)).save(folder / "val" / f"ILSVRC2012_val_{n:08d}.JPEG")
    kit = folder / "devkit" / "data"
    kit.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(i + 1, wnid, "x", 0) for i, wnid in enumerate(WNIDS)]
    scipy.io.savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n")


def finished_run(folder: Path) -> None:
    """A whole run of the small study, with its pictures; shards and report left out."""
    write_generated_images(folder / "pictures", 12, seed=0, side=112)
    changes = {"outliers": {"images": 6}, "awcds": {"images": 6, "bins": 5}, "sae": {"steps": 5}}
    run_study(small_study(folder / "pictures", **changes), folder / "run")
    shutil.rmtree(folder / "run" / "activations")
