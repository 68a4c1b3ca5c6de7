"""Token shards read back as a source of training batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float16, Float32
from torch import Tensor

from vitscope.activations.extract import MANIFEST_SCHEMA
from vitscope.artifacts.atomic import read_json
from vitscope.artifacts.tensors import load_tensors
from vitscope.backbones.backbone import Site
from vitscope.draws import generator
from vitscope.errors import ArtifactError


@dataclass(frozen=True)
class ShardSource:
    """Tokens of an extraction, shuffled across images anew in every epoch.

    The tokens are held in memory in fp16: 2·d bytes each, 7.9 GB for four tokens of every ImageNet
    training image at width 768.

    Attributes:
        site: where the tokens were read.
        tokens: fp16 [draws, n, d]; epoch e takes draw e modulo draws.
        seed: decides the order of every epoch.
    """

    site: Site
    tokens: Float16[Tensor, "draws n d"] = field(repr=False)
    seed: int

    @classmethod
    def open(cls, folder: Path, *, seed: int) -> "ShardSource":
        """Read every shard that the manifest in ``folder`` names.

        Raises:
            ArtifactError: a shard is missing, damaged, or of another extraction.
        """
        manifest = read_json(folder / "manifest.json")
        if manifest.get("schema") != MANIFEST_SCHEMA:
            raise ArtifactError(
                f"{folder}/manifest.json has schema {manifest.get('schema')}, this vitscope reads "
                f"{MANIFEST_SCHEMA}; extract again"
            )
        shards: list[Tensor] = []
        for shard in manifest["shards"]:
            tensors, metadata = load_tensors(folder / shard["file"])
            if metadata.get("fingerprint") != manifest["fingerprint"]:
                raise ArtifactError(f"{folder / shard['file']} is of another extraction; run again")
            per_draw = tensors["tokens"].transpose(0, 1)
            shards.append(per_draw.reshape(per_draw.shape[0], -1, per_draw.shape[-1]))
        return cls(Site(**manifest["site"]), torch.cat(shards, 1), seed)

    @property
    def n_tokens(self) -> int:
        """Tokens of one epoch."""
        return int(self.tokens.shape[1])

    @property
    def width(self) -> int:
        """d."""
        return int(self.tokens.shape[2])

    def epoch_batches(
        self, epoch: int, batch_size: int, skip: int = 0
    ) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield an epoch's whole batches, in an order that depends on (seed, epoch) alone."""
        drawn = self.tokens[epoch % self.tokens.shape[0]]
        order = torch.from_numpy(generator(self.seed, "order", epoch).permutation(self.n_tokens))
        for batch in range(skip, self.n_tokens // batch_size):
            yield drawn[order[batch * batch_size : (batch + 1) * batch_size]].float()

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens at random, the same for the same ``n``."""
        order = torch.from_numpy(generator(self.seed, "sample").permutation(self.n_tokens))
        return self.tokens[0][order[:n]].float()
