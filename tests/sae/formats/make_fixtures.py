"""Small SAEs saved by other projects' own code, with what that code computes on given inputs.

Not run by the tests, which read the files it left under ``fixtures/``. To make them again, in an
environment of its own::

    python -m venv formatlibs
    formatlibs/bin/pip install sae-lens dictionary-learning eai-sparsify saev clipscope overcomplete
    formatlibs/bin/python tests/sae/formats/make_fixtures.py [library ...]

ViT-Prisma and the newer saev are not in the package index in the versions whose files are in use;
those files are made by ``layouts.py`` in their true layout.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FIXTURES = Path(__file__).parent / "fixtures"
WIDTH, FEATURES, TOKENS, K = 8, 32, 48, 5


def tokens() -> torch.Tensor:
    """Tokens off the origin and of no unit scale."""
    g = torch.Generator().manual_seed(0)
    return 3.0 * torch.randn(TOKENS, WIDTH, generator=g) + torch.linspace(-2, 4, WIDTH)


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int) -> None:
    """Fill every parameter with values of its own scale, decoder rows far from norm 1."""
    g = torch.Generator().manual_seed(seed)
    for name, value in sorted(module.named_parameters()):
        scale = 0.6 if value.ndim == 2 else 0.8
        value.copy_(scale * torch.randn(value.shape, generator=g))
        if "threshold" in name:
            value.copy_(2.0 * torch.rand(value.shape, generator=g))


def keep(folder: Path, codes: torch.Tensor, x_hat: torch.Tensor) -> None:
    """Store the inputs and what the library made of them."""
    shown = {"x": tokens(), "codes": codes.detach(), "x_hat": x_hat.detach()}
    n = int((codes != 0).sum())
    assert 0 < n < codes.numel(), f"{folder}: {n} codes are active"
    save_file({k: v.contiguous() for k, v in shown.items()}, f"{folder}.expected.safetensors")


def folder_of(package: str, case: str) -> Path:
    """Return a new folder for a case of a package."""
    path = FIXTURES / f"{package}-{version(package)}" / case
    path.mkdir(parents=True, exist_ok=True)
    return path


def saelens() -> None:
    from sae_lens import (
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )
    from sae_lens.saes.sae import SAE, SAEMetadata

    classes: dict[str, tuple[Any, Any]] = {
        "standard": (StandardSAE, StandardSAEConfig),
        "gated": (GatedSAE, GatedSAEConfig),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
        "topk": (TopKSAE, TopKSAEConfig),
    }
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "standard": ("standard", {}),
        "standard-uncentred": ("standard", {"apply_b_dec_to_input": False}),
        "standard-layer-norm": ("standard", {"normalize_activations": "layer_norm"}),
        "standard-constant-norm": (
            "standard",
            {"normalize_activations": "constant_norm_rescale"},
        ),
        "gated": ("gated", {}),
        "gated-uncentred-layer-norm": (
            "gated",
            {"apply_b_dec_to_input": False, "normalize_activations": "layer_norm"},
        ),
        "jumprelu": ("jumprelu", {"apply_b_dec_to_input": False}),
        "jumprelu-centred": ("jumprelu", {}),
        "topk": ("topk", {"k": K}),
        "topk-rescaled": ("topk", {"k": K, "rescale_acts_by_decoder_norm": True}),
        "topk-layer-norm": ("topk", {"k": K, "normalize_activations": "layer_norm"}),
    }
    for seed, (case, (kind, options)) in enumerate(cases.items()):
        sae_class, config_class = classes[kind]
        metadata = SAEMetadata(model_name="tiny", hook_name="blocks.9.hook_resid_post")
        sae = sae_class(config_class(d_in=WIDTH, d_sae=FEATURES, metadata=metadata, **options))
        randomise(sae, seed)
        folder = folder_of("sae-lens", case)
        sae.save_model(folder)
        loaded = SAE.load_from_disk(folder)
        codes = loaded.encode(tokens())
        keep(folder, codes, loaded(tokens()))
    _legacy_saelens(SAE)


def _legacy_saelens(sae_class: Any) -> None:
    """Version 3 wrote everything flat; the tensors are those of today."""
    for case, extra in {
        "legacy-standard": {"activation_fn_str": "relu"},
        "legacy-topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}},
    }.items():
        source = folder_of("sae-lens", case.removeprefix("legacy-"))
        folder = folder_of("sae-lens", case)
        weights = "sae_weights.safetensors"
        (folder / weights).write_bytes((source / weights).read_bytes())
        flat = {
            "d_in": WIDTH,
            "d_sae": FEATURES,
            "dtype": "torch.float32",
            "device": "cpu",
            "model_name": "tiny",
            "hook_name": "blocks.9.hook_resid_pre",
            "hook_layer": 9,
            "apply_b_dec_to_input": False,
            "normalize_activations": False,
            "sae_lens_training_version": "3.11.1",
            "context_size": 50,
            **extra,
        }
        (folder / "cfg.json").write_text(json.dumps(flat))
        loaded = sae_class.load_from_disk(folder)
        keep(folder, loaded.encode(tokens()), loaded(tokens()))


def dictionary_learning() -> None:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    from dictionary_learning.utils import load_dictionary

    saes: dict[str, Any] = {
        "AutoEncoder": dictionary.AutoEncoder(WIDTH, FEATURES),
        "AutoEncoderNew": dictionary.AutoEncoderNew(WIDTH, FEATURES),
        "GatedAutoEncoder": dictionary.GatedAutoEncoder(WIDTH, FEATURES),
        "JumpReluAutoEncoder": dictionary.JumpReluAutoEncoder(WIDTH, FEATURES),
        "AutoEncoderTopK": AutoEncoderTopK(WIDTH, FEATURES, K),
        "BatchTopKSAE": BatchTopKSAE(WIDTH, FEATURES, K),
        "BatchTopKSAE-unset": BatchTopKSAE(WIDTH, FEATURES, K),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(WIDTH, FEATURES, K, [8, 24]),
    }
    for seed, (case, sae) in enumerate(saes.items()):
        randomise(sae, 100 + seed)
        kind = case.partition("-")[0]
        if case in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
            sae.threshold.fill_(1.7)
        folder = folder_of("dictionary-learning", case)
        torch.save(
            {name: value.cpu() for name, value in sae.state_dict().items()}, folder / "ae.pt"
        )
        trainer = {"dict_class": kind, "k": K, "layer": 9, "lm_name": "tiny", "lr": 1e-3}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
        loaded, _ = load_dictionary(str(folder), "cpu")
        codes = loaded.encode(tokens())
        keep(folder, codes, loaded.decode(codes))


def sparsify() -> None:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernel needs a GPU
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    cases: dict[str, dict[str, Any]] = {
        "topk": {"k": K, "num_latents": FEATURES},
        "topk-expansion": {"k": K, "expansion_factor": FEATURES // WIDTH},
        "groupmax": {"k": 4, "num_latents": FEATURES, "activation": "groupmax"},
    }
    for seed, (case, options) in enumerate(cases.items()):
        sae = SparseCoder(WIDTH, SparseCoderConfig(**options))
        randomise(sae, 200 + seed)
        folder = folder_of("eai-sparsify", case)
        sae.save_to_disk(folder)
        loaded = SparseCoder.load_from_disk(folder)
        top = loaded.encode(tokens())
        codes = torch.zeros(TOKENS, FEATURES).scatter(1, top.top_indices, top.top_acts)
        keep(folder, codes, loaded.decode(top.top_acts, top.top_indices))


def saev() -> None:
    from saev import config, nn

    folder = folder_of("saev", "relu-no-schema")
    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=WIDTH, exp_factor=FEATURES // WIDTH))
    randomise(sae, 300)
    nn.dump(str(folder / "sae.pt"), sae)
    x_hat, codes, _ = nn.load(str(folder / "sae.pt"))(tokens())
    keep(folder, codes, x_hat)


def clipscope() -> None:
    from clipscope import sae as library

    k = 24  # so many that negative values are among the largest: the library keeps them
    for seed, (case, sae) in enumerate(
        {
            "topk": library.TopKSAE(k, n_features=FEATURES, d_in=WIDTH, device="cpu"),
            "relu": library.SAE(n_features=FEATURES, d_in=WIDTH, device="cpu"),
        }.items()
    ):
        randomise(sae, 400 + seed)
        folder = folder_of("clipscope", case)
        saved = {"model_state_dict": sae.state_dict(), "n_features": FEATURES, "d_in": WIDTH}
        torch.save(saved | ({"k": k} if case == "topk" else {}), folder / "1200013184.pt")
        type(sae)._download = classmethod(  # its loader, with the file at hand for the hub
            lambda cls, checkpoint, device, repo_id=None: torch.load(checkpoint, weights_only=True)
        )
        loaded = type(sae).from_pretrained(folder / "1200013184.pt", device="cpu")
        out = loaded(tokens())
        keep(folder, out["latent"], out["reconstruction"])


def overcomplete() -> None:
    import matplotlib

    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # gone from matplotlib, asked for
    from overcomplete.sae import JumpSAE, TopKSAE
    from overcomplete.sae.modules import MLPEncoder

    def encoder() -> Any:
        return MLPEncoder(WIDTH, FEATURES, nb_blocks=1, norm_layer=lambda _: torch.nn.Identity())

    multiplier = {"use_multiplier": True}
    topk = TopKSAE(WIDTH, FEATURES, K, encoder_module=encoder(), dictionary_params=multiplier)
    jump = JumpSAE(WIDTH, FEATURES, encoder_module=encoder())
    heads: dict[str, tuple[Any, str]] = {
        "topk": (topk, f'activation = "topk"\nk = {K}\n'),
        "jump": (jump, 'activation = "threshold"\n'),
    }
    for seed, (case, (sae, head)) in enumerate(heads.items()):
        randomise(sae, 500 + seed)
        folder = folder_of("overcomplete", case)
        extra = 'decoder_log_scale = "dictionary.multiplier"\n'
        extra += 'log_threshold = "thresholds"\n' if case == "jump" else ""
        torch.save(sae.state_dict(), folder / "state.pt")
        (folder / "mapping.toml").write_text(
            f"{head}unit_rows = true\nsubtract_b_dec = false\n\n[tensors]\n"
            'w_enc = "encoder.final_block.0.weight.T"\nb_enc = "encoder.final_block.0.bias"\n'
            f'w_dec = "dictionary._weights"\n{extra}'
        )
        sae.eval()
        _, codes, x_hat = sae(tokens())
        keep(folder, codes, x_hat)


def exported() -> None:
    """What SAELens makes of folders that vitscope exported: ``make_exports.py`` comes first."""
    from sae_lens.saes.sae import SAE

    for config in sorted(FIXTURES.glob("exported-to-sae-lens/*/cfg.json")):
        loaded = SAE.load_from_disk(config.parent)
        keep(config.parent, loaded.encode(tokens()), loaded(tokens()))


MAKERS: dict[str, Callable[[], None]] = {
    maker.__name__: maker
    for maker in (saelens, dictionary_learning, sparsify, saev, clipscope, overcomplete, exported)
}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()
