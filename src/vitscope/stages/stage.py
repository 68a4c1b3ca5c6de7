"""A stage: what makes it stale, what it does, what it leaves; and how it is skipped or run.

A stage is one class in one file. Its result is a frozen record, which
:mod:`vitscope.store.records` saves and loads; whoever comes later reads that record and nothing
else. CONTRIBUTING.md shows how a new one is added.
"""

import inspect
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.loading import PLANTED, choose_device, load_backbone
from vitscope.distributed import ShareDone, current_ranks
from vitscope.errors import ArtifactError
from vitscope.images.sources import ImageRef, ImageSet, open_image_set
from vitscope.images.verify import VerifiedImages, read_image_table
from vitscope.sae.formats.load import load_sae
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits, load_saved_sae
from vitscope.scope.views import plain_view, shifted_views
from vitscope.store.atomic import file_checksum, fingerprint, write_text
from vitscope.store.parts import discard_parts
from vitscope.store.records import load_record, save_record
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import (
    STAMP_SCHEMA,
    Stamp,
    library_versions,
    outputs_whole,
    read_stamp,
    write_stamp,
)
from vitscope.study import Study, dump_study
from vitscope.tokens.encoding import LoaderOptions

R = TypeVar("R")


class Models:
    """What computes, each loaded when it is first asked for and once per process.

    Args:
        study: which they are.
        run: where the SAE lies.
        backbone: one that is loaded already, in place of the study's.
        images: the evaluation images, in place of the study's.
    """

    def __init__(
        self,
        study: Study,
        run: RunDirectory,
        backbone: Backbone | None = None,
        images: ImageSet | None = None,
    ) -> None:
        self._study, self._run = study, run
        self._backbone, self._images = backbone, images

    @cached_property
    def backbone(self) -> Backbone:
        """The study's backbone, with its weights."""
        return self._backbone or load_backbone(self._study.backbone)

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The run's SAE, where the backbone's tokens lie."""
        sae = load_saved_sae(self._run.sae)
        check_fits(sae, self.backbone.site)
        return sae.to(self.device)

    @cached_property
    def given_sae(self) -> SparseAutoencoder:
        """The SAE that the study brings along, read or fetched."""
        source = self._study.sae.path
        assert source is not None
        return load_sae(source)

    @property
    def device(self) -> torch.device:
        """Where the backbone's tokens lie, and the SAE with them; `planted` is on the CPU."""
        if self._study.backbone.name == PLANTED:
            return torch.device("cpu")
        return choose_device(self._study.backbone.device)

    def image_set(self, split: str) -> ImageSet | None:
        """Return the images of ``train`` or ``eval``, unopened; None: the study has none.

        Raises:
            ImageSetError: nothing is there.
        """
        images = self._study.images
        if split == "train":
            return self._images or open_image_set(images.train, limit=images.train_limit)
        return None if images.eval is None else open_image_set(images.eval, limit=images.eval_limit)

    @property
    def plain_view(self) -> Callable[[Image], Tensor]:
        """Prepares an image as the backbone takes it, unshifted: bytes [3, H, W]."""
        return partial(
            plain_view,
            site=self.backbone.site,
            preprocessing=self.backbone.preprocessing,
            stretch=self._study.stretch,
        )

    @property
    def shifted_views(self) -> Callable[[Image], Tensor]:
        """Prepares the two views of an image that the study compares: bytes [2, 3, H, W]."""
        return partial(
            shifted_views,
            site=self.backbone.site,
            shift=self._study.scope.shift,
            stretch=self._study.stretch,
        )


@dataclass(frozen=True, eq=False)
class Job:
    """A study in progress; the run directory is locked by the caller.

    Attributes:
        study: the settings.
        run: where everything lies.
        models: loaded when they are needed.
        only: the stages that may work; another that is not up to date is an error. None: all may.
        stage: that at work.
        fingerprint: of its settings and inputs; its partial results carry it.
        rates: images, views or tokens per second, which the stage at work fills in.
    """

    study: Study
    run: RunDirectory
    models: Models
    only: frozenset[str] | None = None
    stage: str = ""
    fingerprint: str = ""
    rates: dict[str, float] = field(default_factory=dict)

    def stamp(self, stage: str) -> Stamp:
        """Return the stamp of a stage that must have finished.

        Raises:
            ArtifactError: it has not; the message says what to run.
        """
        stamp = read_stamp(self.run, stage)
        if stamp is None:
            raise not_finished(stage, self.run)
        return stamp

    def result(self, stage: "type[Stage[R]]") -> R:
        """Return what an earlier stage found.

        Raises:
            ArtifactError: it has not finished, or what it left is not whole.
        """
        return load_record(stage.result_type(), self.stamp(stage.name).result, self.run.root)

    @property
    def options(self) -> LoaderOptions:
        """How images are read for a forward pass."""
        images = self.study.images
        return LoaderOptions(self.study.backbone.batch_size, images.workers, images.max_pixels)

    def images(self, split: str) -> VerifiedImages:
        """Return the verified images of ``train`` or ``eval``."""
        shared = split == "eval" and self.study.images.eval is None
        return read_image_table(self.run.images("train" if shared else split))

    @cached_property
    def eval_refs(self) -> Sequence[ImageRef]:
        """The usable evaluation images."""
        return self.images("eval").usable

    @cached_property
    def eval_positions(self) -> dict[str, int]:
        """Position of each evaluation image in its set, by id."""
        return {ref.id: index for index, ref in enumerate(self.eval_refs)}


class Stage(ABC, Generic[R]):
    """One step of the pipeline. Subclasses say, top to bottom, all there is to know of it.

    Attributes:
        name: its verb on the command line, and the name of its stamp.
        after: stages whose results it reads.
        shared: in a job of several ranks all of them do the work; otherwise rank 0 alone does.
        version: bumped when what it leaves means something new: earlier runs then redo it.
        Result: the frozen record that :meth:`run` returns.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[bool] = False
    version: ClassVar[int] = 1
    Result: type[R]

    @classmethod
    def result_type(cls) -> type[R]:
        """Return the record that :meth:`run` returns."""
        return cast(type[R], getattr(cls, "Result"))  # noqa: B009  pyright: generic class attribute

    @classmethod
    def purpose(cls) -> str:
        """Return what it is for: the first line of its module, after ``Stage «name»:``."""
        return purpose_in(inspect.getdoc(inspect.getmodule(cls)) or "")

    def is_wanted(self, study: Study) -> bool:  # noqa: ARG002
        """Whether a study has any use for it."""
        return True

    def check(self, study: Study) -> None:
        """Refuse what it could not use, before any stage runs."""

    def needs(self, job: Job) -> tuple[str, ...]:  # noqa: ARG002
        """Return those of ``after`` that this study has."""
        return self.after

    @abstractmethod
    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return everything of the study that changes the result, as plain JSON."""

    def inputs(self, job: Job) -> Mapping[str, str]:  # noqa: ARG002
        """Return the hashes of what it reads besides the results of ``after``."""
        return {}

    @abstractmethod
    def run(self, job: Job) -> R:
        """Do the work. Partial results lie under ``job.run.parts(name)`` meanwhile."""

    def headline(self, result: R) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return rows of (label, text) for the end of a run on the terminal."""
        return []

    def remark(self, result: R) -> str:  # noqa: ARG002
        """Return what must be said as soon as the stage has ended."""
        return ""


def purpose_in(docstring: str) -> str:
    """Return the purpose that a stage's module begins with: ``Stage «name»: purpose.``"""
    first = docstring.partition("\n")[0]
    return first.partition("»: ")[2].removesuffix(".")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        stage: which.
        stamp: what it left.
        result: its record.
        skipped: nothing had changed, and the earlier result stands.
    """

    stage: Stage[Any]
    stamp: Stamp
    result: Any
    skipped: bool


def not_finished(stage: str, run: RunDirectory) -> ArtifactError:
    """Return the error of a stage that something needs and that has not run."""
    return ArtifactError(
        f"stage '{stage}' has not finished in {run.root}; run `vitscope run {run.root}`, or "
        f"`vitscope {stage} {run.root}` first"
    )


WORK, END = "work", "end"
"""What rank 0 says to the others: to join the work of a stage, or how it has ended."""


def run_unless_fresh(stage: Stage[Any], job: Job) -> Outcome:
    """Run ``stage`` unless its result stands: equal settings and inputs, every output whole.

    Rank 0 alone looks at the run directory and writes there. The others wait for its word, and
    work where the stage is shared.

    Raises:
        ArtifactError: the stage is not up to date, and ``job.only`` does not allow it to work.
    """
    ranks = current_ranks()
    if ranks.rank != 0:
        return _follow_rank_0(stage, job)
    made_from = {
        "settings": {"seed": job.study.seed, **stage.settings(job)},
        "inputs": {**{n: job.stamp(n).digest for n in stage.needs(job)}, **stage.inputs(job)},
    }
    layout = {"schema": STAMP_SCHEMA, "stage": stage.name, "version": stage.version}
    key = fingerprint({**layout, **made_from})
    stamp = read_stamp(job.run, stage.name)
    skipped = stamp is not None and stamp.fingerprint == key and outputs_whole(job.run, stamp)
    if stamp is None or not skipped:
        if job.only is not None and stage.name not in job.only:
            raise ArtifactError(
                f"stage '{stage.name}' in {job.run.root} was made under other settings or inputs; "
                f"run `vitscope run` on this study, or `vitscope {stage.name}` first"
            )
        if stage.shared:
            ranks.broadcast(json.dumps([WORK, key]))
        stamp = _run_and_stamp(stage, job, key, made_from)
    discard_parts(job.run.parts(stage.name))  # a kill may have come between the stamp and this
    ranks.broadcast(json.dumps([END, asdict(stamp), skipped]))
    return _outcome(stage, job, stamp, skipped)


def _run_and_stamp(
    stage: Stage[Any], job: Job, key: str, made_from: Mapping[str, dict[str, Any]]
) -> Stamp:
    job.run.stamp(stage.name).unlink(missing_ok=True)  # changing outputs must not look finished
    at_work = replace(job, stage=stage.name, fingerprint=key, rates={})
    started = time.monotonic()
    result = stage.run(at_work)
    told = {"stage": stage.name, "fingerprint": key, "settings": made_from["settings"]}
    plain, files = save_record(result, job.run.root, told)
    stamp = Stamp(
        schema=STAMP_SCHEMA,
        stage=stage.name,
        fingerprint=key,
        **made_from,
        outputs={p.relative_to(job.run.root).as_posix(): file_checksum(p) for p in files},
        result=plain,
        seconds=round(time.monotonic() - started, 3),
        rates=at_work.rates,
        versions=library_versions(),
    )
    return write_stamp(job.run, stamp)


def _follow_rank_0(stage: Stage[Any], job: Job) -> Outcome:
    while True:
        word, *rest = json.loads(current_ranks().broadcast(""))
        if word == END:
            stamp, skipped = rest
            return _outcome(stage, job, Stamp(**stamp), skipped)
        with suppress(ShareDone):
            stage.run(replace(job, stage=stage.name, fingerprint=rest[0], rates={}))


def _outcome(stage: Stage[Any], job: Job, stamp: Stamp, skipped: bool) -> Outcome:
    result = load_record(stage.Result, stamp.result, job.run.root)
    return Outcome(stage, stamp, result, skipped)


@contextmanager
def held_run(folder: RunDirectory, study: Study) -> Generator[None]:
    """Hold a run directory for the whole job, with its study written: rank 0 does both.

    Raises:
        RunLockedError: another job holds it.
        ArtifactError: the directory cannot be created or written.
    """
    ranks = current_ranks()
    with folder.locked() if ranks.rank == 0 else nullcontext():
        if ranks.rank == 0:
            write_text(folder.study, dump_study(study))
        ranks.barrier()  # the run directory is held
        yield
