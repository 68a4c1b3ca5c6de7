"""The oracle: an SAE made of the true atoms, which leaves the pipeline alone to be judged."""

import torch

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.sae.model import SparseAutoencoder


def oracle_sae(backbone: PlantedBackbone) -> SparseAutoencoder:
    """Return the SAE whose feature j is atom j; θ lies half-way to the weakest activation."""
    spec = backbone.spec
    return SparseAutoencoder(
        w_enc=backbone.atoms.T.contiguous(),
        b_enc=torch.zeros(spec.n_atoms),
        w_dec=backbone.atoms,
        b_dec=backbone.bias,
        threshold=spec.local_amplitude[0] / 2,
        k=round(spec.atoms_per_token),
        site=backbone.site,
        info={"oracle": "true atoms"},
    )
