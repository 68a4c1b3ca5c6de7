"""Every reader of files from outside, with files that it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz import target_files as files
from tests.sae.formats.cases import folders

from vitscope.backbones.scenes_vit import read_header
from vitscope.backbones.transformers_loading import find_folder
from vitscope.backbones.weights.reading import read_state
from vitscope.explorer.live import LiveRun
from vitscope.explorer.tables import encode_columns
from vitscope.images.ade20k import read_ade20k
from vitscope.images.decode import PIL_PIXEL_LIMIT, check_bytes, decode_image, read_file
from vitscope.images.imagenet import open_imagenet
from vitscope.images.nyud import read_nyud_folder, read_nyud_mat
from vitscope.images.sources import ImageFolder
from vitscope.probes.features import FeatureCache
from vitscope.probes.prompts import load_prompts
from vitscope.run import STAGES_READ, Run
from vitscope.sae.formats.load import load_sae
from vitscope.store.records import table_paths
from vitscope.store.tables import read_metadata, read_table
from vitscope.study import load_study
from vitscope.tokens.sources import ShardSource

PATH = "path"


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        make: writes valid files into a folder.
        read: reads them; handed the folder and the file that was damaged.
        suffixes: of the files to damage; empty for all.
    """

    make: Callable[[Path], object]
    read: Callable[[Path, Path], object]
    suffixes: tuple[str, ...] = ()


def _image(folder: Path, file: Path) -> None:
    decode_image(file, max_pixels=PIL_PIXEL_LIMIT)
    check_bytes(read_file(file), max_pixels=PIL_PIXEL_LIMIT)


def _images_named(folder: Path, file: Path) -> None:
    ImageFolder(file).listing_digest  # noqa: B018


def _weights(folder: Path, file: Path) -> None:
    read_state(file.parent if file.parent.name == "sharded" else file)


def _shards(folder: Path, file: Path) -> None:
    source = ShardSource.open(folder / "activations", seed=0)
    source.sample(4)
    next(source.epoch_batches(0, 4), None)


def _table(folder: Path, file: Path) -> None:
    read_table(file)
    read_metadata(file)


def _cache(folder: Path, file: Path) -> None:
    cache = FeatureCache.open(folder / "cache")
    for name in cache.shards[0]:
        cache.tensor(name)[: len(cache)].sum()


def _nyud_mat(folder: Path, file: Path) -> None:
    found = read_nyud_mat(folder / "labeled.mat", folder / "splits.mat", "train")
    for index in range(len(found)):
        found.load(index)


def _nyud_pairs(folder: Path, file: Path) -> None:
    found = read_nyud_folder(folder, "train")
    for index in range(min(4, len(found))):
        found.load(index)


def _ade20k(folder: Path, file: Path) -> None:
    found = read_ade20k(folder, "validation")
    for index in range(len(found)):
        found.load(index)


def _imagenet(folder: Path, file: Path) -> None:
    for found in open_imagenet(folder):
        found.load(0)


def _run(folder: Path, file: Path) -> None:
    live = LiveRun(folder / "run")
    encode_columns(live.run.features, live.exemplars, live.run.image_refs)


def _whole_run(folder: Path, file: Path) -> None:
    run = Run(folder / "run")
    for stage in STAGES_READ:
        if run.has(stage.name):
            found = run.result(stage)
            for name in table_paths(stage.result_type()):
                table = getattr(found, name)
                assert table is None or table.columns is not None
    _ = run.image_refs, run.training_log, run.partition.scores, run.scoring.scores


def _sae(folder: Path, file: Path) -> None:
    load_sae(folder)


TARGETS: dict[str, Target] = {
    "study TOML": Target(files.study_file, lambda _, file: load_study(file)),
    "prompts TOML": Target(files.prompts_file, lambda _, file: load_prompts(file)),
    "images": Target(files.picture_files, _image),
    "image lists": Target(files.image_list, _images_named, (".txt",)),
    "SAE of vitscope": Target(files.own_sae, _sae),
    "SAE by mapping": Target(files.mapped_sae, _sae),
    "SAE of saev": Target(files.saev_sae, _sae),
    "SAE of ViT-Prisma": Target(files.prisma_sae, _sae),
    **{
        f"SAE of {case.parent.name}, {case.name}": Target(
            partial(files.sae_fixture, f"{case.parent.name}/{case.name}"), _sae
        )
        for case in folders()
    },
    "weights": Target(files.weight_files, _weights),
    "reference header": Target(files.reference_header, lambda _, file: read_header(file)),
    "transformers folder": Target(
        files.transformers_folder, lambda folder, _: find_folder(str(folder), None, name="x")
    ),
    "shards and manifest": Target(files.extraction, _shards),
    "probe features": Target(files.probe_cache, _cache, (".safetensors",)),
    "parquet table": Target(files.table_file, _table),
    "NYUd .mat": Target(files.nyud_mat, _nyud_mat),
    "NYUd pairs": Target(files.nyud_pairs, _nyud_pairs),
    "ADE20K": Target(files.ade20k, _ade20k),
    "ImageNet": Target(files.imagenet, _imagenet),
    "run, explored": Target(files.finished_run, _run, (".json", ".parquet", ".toml")),
    "run": Target(files.finished_run, _whole_run, (".json", ".parquet", ".toml")),
}
