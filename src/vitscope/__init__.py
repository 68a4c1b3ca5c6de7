"""Which features of a vision transformer are local, which are global, and what does each kind do?

The public names, each in the module that defines it::

    import vitscope as vs

    backbone = vs.load_backbone("clip-b16")
    sae = vs.load_sae("runs/clip-b16/sae")
    run = vs.score(backbone, sae, vs.ImageFolder("imagenet/val"))
    run.partition.high  # features that depend on their context
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitscope.backbones.attention import QueryKeyAttention
    from vitscope.backbones.backbone import Backbone, BlockTokens, FinalOutput, Preprocessing, Site
    from vitscope.backbones.loading import load_backbone
    from vitscope.backbones.settings import BackboneSettings
    from vitscope.backbones.user_model import check_backbone
    from vitscope.embedded.files import shipped_sae
    from vitscope.errors import VitscopeError
    from vitscope.images.sources import ImageFolder, SceneSet, open_image
    from vitscope.notebook import OpenRun, open_run, score
    from vitscope.pipeline import run_study
    from vitscope.probes.text_towers import load_text_tower
    from vitscope.removal.backbone import RemovedBackbone, removed
    from vitscope.removal.remove import remove, remove_groups
    from vitscope.run import Run
    from vitscope.sae.formats.load import load_sae
    from vitscope.sae.model import SparseAutoencoder
    from vitscope.sae.storage import save_sae
    from vitscope.scope.gallery import choose_gallery, exemplar_views, token_maps
    from vitscope.scope.partition import Partition
    from vitscope.scope.views import plain_view, shifted_views
    from vitscope.study import Study, load_study
    from vitscope.transport.emd import emd

# Imported on first use: `vitscope --help` and `vs.emd` need not wait for timm.
_HOMES = {
    "Backbone": "vitscope.backbones.backbone",
    "BackboneSettings": "vitscope.backbones.settings",
    "BlockTokens": "vitscope.backbones.backbone",
    "FinalOutput": "vitscope.backbones.backbone",
    "ImageFolder": "vitscope.images.sources",
    "Partition": "vitscope.scope.partition",
    "Preprocessing": "vitscope.backbones.backbone",
    "QueryKeyAttention": "vitscope.backbones.attention",
    "RemovedBackbone": "vitscope.removal.backbone",
    "SceneSet": "vitscope.images.sources",
    "Site": "vitscope.backbones.backbone",
    "SparseAutoencoder": "vitscope.sae.model",
    "Study": "vitscope.study",
    "VitscopeError": "vitscope.errors",
    "check_backbone": "vitscope.backbones.user_model",
    "choose_gallery": "vitscope.scope.gallery",
    "emd": "vitscope.transport.emd",
    "exemplar_views": "vitscope.scope.gallery",
    "load_backbone": "vitscope.backbones.loading",
    "load_sae": "vitscope.sae.formats.load",
    "load_study": "vitscope.study",
    "load_text_tower": "vitscope.probes.text_towers",
    "open_image": "vitscope.images.sources",
    "plain_view": "vitscope.scope.views",
    "remove": "vitscope.removal.remove",
    "remove_groups": "vitscope.removal.remove",
    "removed": "vitscope.removal.backbone",
    "run_study": "vitscope.pipeline",
    "save_sae": "vitscope.sae.storage",
    "score": "vitscope.notebook",
    "open_run": "vitscope.notebook",
    "OpenRun": "vitscope.notebook",
    "Run": "vitscope.run",
    "shifted_views": "vitscope.scope.views",
    "shipped_sae": "vitscope.embedded.files",
    "token_maps": "vitscope.scope.gallery",
}

__version__ = version("vitscope")
__all__ = [
    "Backbone",
    "BackboneSettings",
    "BlockTokens",
    "FinalOutput",
    "ImageFolder",
    "OpenRun",
    "Partition",
    "Preprocessing",
    "QueryKeyAttention",
    "RemovedBackbone",
    "Run",
    "SceneSet",
    "Site",
    "SparseAutoencoder",
    "Study",
    "VitscopeError",
    "check_backbone",
    "choose_gallery",
    "emd",
    "exemplar_views",
    "load_backbone",
    "load_sae",
    "load_study",
    "load_text_tower",
    "open_image",
    "open_run",
    "plain_view",
    "remove",
    "remove_groups",
    "removed",
    "run_study",
    "save_sae",
    "score",
    "shifted_views",
    "shipped_sae",
    "token_maps",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitscope' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
