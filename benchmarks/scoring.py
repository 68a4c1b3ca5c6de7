"""Scoring a whole dictionary against the straightforward loop, end to end, in one run.

Ours: one forward per image for the exemplars, two for the shifted views of the images some feature
wants, distances on threads meanwhile. The loop: per feature, for each of its exemplar images, load
it, cut two views, encode each, take the feature's maps, ``ot.emd2`` on the full grid. The loop is
timed on a few features drawn at random and extrapolated to all of them. Both are given the same
backbone and SAE; weights are random, speed does not depend on their values.
Run with ``python benchmarks/scoring.py [--help]``.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import ot
import timm
import torch
from safetensors.torch import save_file

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.loading import load_backbone
from vitscope.backbones.zoo import ZOO
from vitscope.images.decode import decode_image
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageFolder, ImageRef
from vitscope.notebook import OpenRun, score
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.views import Overlap, plain_view, shifted_views
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images
from vitscope.transport.emd import cell_distances

TARGET_L0 = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deit3-s", choices=list(ZOO))
    parser.add_argument("--features", type=int, default=24_576)
    parser.add_argument("--n", type=int, default=1000, help="images")
    parser.add_argument("--top-images", type=int, default=16)
    parser.add_argument("--sample", type=int, default=4, help="features the loop is timed on")
    parser.add_argument("--images", type=Path, help="photographs; default: generated ones")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        backbone = random_backbone(options.model, options.device, folder)
        source = options.images or folder / "images"
        if options.images is None:
            write_generated_images(source, options.n, seed=0, side=256)
        images = ImageFolder(source, limit=options.n)
        sae = random_sae(backbone, images.refs[:8], options.features)
        started = time.perf_counter()
        scope = {"top_images": options.top_images, "null_draws": 0}
        run = score(backbone, sae, images, scope=scope)
        ours = time.perf_counter() - started
        per_feature = time_loop(backbone, sae, run, options.sample)
        report(options, run, ours, per_feature)


def random_backbone(name: str, device: str, folder: Path) -> Backbone:
    torch.manual_seed(0)
    model = timm.create_model(ZOO[name].timm_name, pretrained=False)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.normal_().mul_(spread).add_(1.0 if "norm" in key and "weight" in key else 0.0)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return load_backbone(name, weights=folder / "weights.safetensors", device=device)


def random_sae(
    backbone: Backbone, refs: tuple[ImageRef, ...], n_features: int
) -> SparseAutoencoder:
    """Random directions, with θ where a token has 30 active features on average."""
    prepare = partial(plain_view, site=backbone.site, preprocessing=backbone.preprocessing)
    batches = encode_images(backbone, refs, prepare, LoaderOptions(), clock=PassClock())
    tokens = torch.cat([batch.tokens.patch.flatten(0, 1).cpu() for batch in batches])
    rows = torch.nn.functional.normalize(torch.randn(n_features, tokens.shape[1]), dim=1)
    mean = tokens.mean(0)
    pre = ((tokens[:512] - mean) @ rows.T).flatten()
    least = pre.kthvalue(pre.numel() - 512 * TARGET_L0).values
    bias = torch.zeros(n_features)
    return SparseAutoencoder(rows.T.contiguous(), bias, rows, mean, float(least), TARGET_L0)


def time_loop(backbone: Backbone, sae: SparseAutoencoder, run: OpenRun, n: int) -> float:
    """Return the loop's seconds per feature; its distances must be ours."""
    pairs, refs, site = run.scoring.scores, run.image_refs, backbone.site
    overlap, sae = Overlap(site.grid, 1), sae.to(torch.device("cpu"))
    cost = cell_distances(overlap.side, overlap.side).copy()
    complete = np.flatnonzero(np.bincount(pairs.feature[pairs.kept], minlength=sae.n_features))
    chosen = np.random.default_rng(0).choice(complete, n, replace=False)
    started = time.perf_counter()
    for feature in chosen:
        for row in np.flatnonzero(pairs.feature == feature):
            image = decode_image(refs[pairs.image[row]].path, max_pixels=10**9)
            views = shifted_views(image, site, 1)
            maps: list[np.ndarray] = []
            for view, positions in zip(views, (overlap.first, overlap.second), strict=True):
                tokens = backbone.tokens(view[None]).patch[0].float().cpu()
                wanted = torch.tensor([int(feature)])
                maps.append(
                    sae.encode(tokens[torch.from_numpy(positions)], wanted)[:, 0].double().numpy()
                )
            if all(one.any() for one in maps):
                found = ot.emd2(maps[0] / maps[0].sum(), maps[1] / maps[1].sum(), cost)
                assert abs(found - pairs.emd[row]) < 1e-2, (found, pairs.emd[row])
    return (time.perf_counter() - started) / n


def report(options: argparse.Namespace, run: OpenRun, ours: float, loop: float) -> None:
    pairs, n_images = run.scoring.scores, len(run.image_refs)
    views = run.outliers.n_images + n_images + 2 * run.scoring.n_images
    whole = loop * options.features
    print(
        f"{run.site.model}, {options.features} features, k = {options.top_images}, "
        f"{n_images} images, {len(pairs.feature)} pairs, {torch.get_num_threads()} threads"
    )
    print(f"  ours      {ours:10.0f} s   {views:>9} forward views")
    print(
        f"  the loop  {whole:10.0f} s   {2 * len(pairs.feature):>9} forward views "
        f"(extrapolated from {options.sample} features)"
    )
    print(f"  ratio     {whole / ours:10.0f}")


if __name__ == "__main__":
    main()
