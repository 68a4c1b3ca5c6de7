"""Vision transformers of transformers, exported to ONNX: their weights under their own names.

torch's exporters keep the names of biases, norms and embeddings, and lose those of all matrices:
they are stored transposed, as ``onnx::MatMul_*`` or ``val_*``. What each of them is, is told here
by the named bias that is added to its product, and by nothing else. Position embeddings and the
class token, where they became constants, are told by where they enter the sum before the first
block. What comes after the last norm and has no name of the tower (a decoder, another head) is
left aside; everything before it must be accounted for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitscope.backbones.weights.onnx_file import OnnxGraph, read_graph
from vitscope.errors import BackboneError

RESHAPING = ("Reshape", "Flatten", "Transpose", "Cast", "Identity", "Squeeze", "Unsqueeze")
"""Operators that change the order or kind of what they take, and no value."""

FILLING = (*RESHAPING, "Expand", "Tile", "Resize")
"""Operators between a constant of the embeddings and where it is added or joined."""

HEADS = ("classifier.",)
"""Beside the tower, and still of the layout: the classifier of a ViT."""


@dataclass(frozen=True)
class _Family:
    """Names that a family of models has, below the tower's own prefix."""

    patches: str
    cls: str
    positions: str
    norm_bias: str
    flat: bool  # positions [N, d] and class token [d], rather than with leading ones


_FAMILIES = (
    _Family(
        patches="embeddings.patch_embeddings.projection.weight",  # ViT, DINOv2
        cls="embeddings.cls_token",
        positions="embeddings.position_embeddings",
        norm_bias="layernorm.bias",
        flat=False,
    ),
    _Family(
        patches="embeddings.patch_embedding.weight",  # CLIP, SigLIP
        cls="embeddings.class_embedding",
        positions="embeddings.position_embedding.weight",
        norm_bias="post_layernorm.bias",
        flat=True,
    ),
)


def read_onnx(file: Path) -> dict[str, Tensor]:
    """Return the weights of an exported DINOv2, ViT, CLIP or SigLIP, by transformers' names.

    Names are those of the model's ``state_dict()`` without what stands before the whole tower.

    Raises:
        BackboneError: the package ``onnx`` is not there; damaged, quantised, or of no known layout;
            a matrix without a named bias, or another constant before the last norm that no rule
            names.
    """
    return _Tower(read_graph(file)).weights()


class _Tower:
    """One exported image tower; constants are named one after another, and ticked off."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.family, self.prefix, self.stem = self._found()
        self.state: dict[str, Tensor] = {}
        self.known: set[str] = set()

    def weights(self) -> dict[str, Tensor]:
        """Name everything; see :func:`read_onnx`."""
        before_norm = self._before_norm()
        self._take_named()
        self._take_matrices(before_norm)
        self._take_embeddings()
        self._take_pooling()
        for node in before_norm:
            self._refuse_nameless(node)
        return self.state

    def _refuse(self, why: str) -> BackboneError:
        return BackboneError(
            f"{self.graph.file}: {why}; give the graph as torch.onnx.export left it of a Dinov2, "
            "ViT, CLIP or SigLIP model of transformers, or its safetensors"
        )

    def _found(self) -> tuple[_Family, str, Any]:
        """Return the family, the tower's prefix, and the convolution that makes patches."""
        found = [
            (family, name.removesuffix(family.patches), node)
            for node in self.graph.nodes
            if node.op_type == "Conv" and len(node.input) > 1
            for family in _FAMILIES
            for name in [node.input[1]]
            if name == family.patches or name.endswith(f".{family.patches}")
        ]
        if len(found) != 1:
            names = " or ".join(family.patches for family in _FAMILIES)
            raise self._refuse(
                f"of no known layout: {len(found)} convolutions named {names}, not 1"
            )
        return found[0]

    def _before_norm(self) -> list[Any]:
        """Return the nodes that the output of the last norm is computed from, it included."""
        last = self.graph.takers.get(self.prefix + self.family.norm_bias, [])
        if len(last) != 1:
            raise self._refuse(f"the last norm's {self.family.norm_bias} is used {len(last)} times")
        found: dict[str, Any] = {}
        waiting = [last[0]]
        while waiting:
            node = waiting.pop()
            if node.output[0] in found:
                continue
            found[node.output[0]] = node
            makers = (self.graph.makers.get(name) for name in node.input if name)
            waiting += [maker for maker in makers if maker is not None]
        if self.stem.output[0] not in found:
            raise self._refuse("the last norm does not see the patches")
        return list(found.values())

    def _keep(self, name: str, value: Tensor, source: str) -> None:
        if name in self.state:
            raise self._refuse(f"{source} and another constant are both {name}")
        self.state[name] = value
        self.known.add(source)

    def _take_named(self) -> None:
        """Take the tower's own names, but for matrices, whose orientation their use tells."""
        for name in self.graph.constants:
            inside = name.startswith(self.prefix) and _is_dotted(name)
            own = name.removeprefix(self.prefix) if inside else name
            is_head = name.startswith(HEADS)
            if (inside or is_head) and self.graph.is_float(name) and not self._as_factor(name):
                self._keep(own, self.graph.tensor(name), name)

    def _as_factor(self, name: str) -> bool:
        """Whether a constant is multiplied as it is, so that it is a matrix stored transposed."""
        takers = self.graph.takers.get(name, [])
        return any(_is_product(node) and name in node.input[1:2] for node in takers)

    def _take_matrices(self, before_norm: list[Any]) -> None:
        own = {node.output[0] for node in before_norm}
        for node in self.graph.nodes:
            name = node.input[1] if _is_product(node) else ""
            if name not in self.graph.constants or len(self.graph.shape(name)) != 2:
                continue
            bias = self._bias_of(node)
            if bias is None and node.output[0] not in own:
                continue  # a decoder's
            if bias is None:
                raise self._refuse(
                    f"the matrix {name} {list(self.graph.shape(name))} has no named bias added to "
                    "its product, so that nothing says which it is"
                )
            if name in self.known:
                raise self._refuse(f"{name} is the matrix of several products")
            if bias.startswith(self.prefix):
                weight = bias.removeprefix(self.prefix).removesuffix("bias") + "weight"
                self._keep(weight, self.graph.tensor(name).T.contiguous(), name)

    def _bias_of(self, product: Any) -> str | None:
        """Return the name of the only thing that is added to a product, if it is a named bias."""
        added = self._added_to(product)
        return added if added is not None and added.endswith(".bias") else None

    def _added_to(self, product: Any) -> str | None:
        """Return the constant that is added to a product, and is all that is done with it."""
        takers = self.graph.takers.get(product.output[0], [])
        if product.op_type == "Gemm":
            others = list(product.input[2:])
        elif len(takers) == 1 and takers[0].op_type == "Add":
            others = [name for name in takers[0].input if name != product.output[0]]
        else:
            return None
        return others[0] if len(others) == 1 and others[0] in self.graph.constants else None

    def _take_embeddings(self) -> None:
        """Name what is joined with, and added to, the patches before the first block."""
        node, value = self._after_reshaping(self.stem.output[0])
        if node.op_type == "Concat":
            others = [name for name in node.input if name != value]
            if len(others) != 1:
                raise self._refuse("patches are joined with more than a class token")
            self._take_class_token(others[0])
            node, value = self._after_reshaping(node.output[0])
        if node.op_type != "Add":
            raise self._refuse(f"patches meet a {node.op_type} before their positions")
        (source,) = [name for name in node.input if name != value] or [value]
        if self.family.positions not in self.state:
            positions = self._positions(source)
            self.state[self.family.positions] = positions[0] if self.family.flat else positions

    def _after_reshaping(self, value: str) -> tuple[Any, str]:
        """Return the first node below a value that does more than reshape, and what it takes."""
        while True:
            # a shape that is asked for changes nothing
            takers = [n for n in self.graph.takers.get(value, []) if n.op_type != "Shape"]
            if len(takers) != 1:
                raise self._refuse(f"{value} goes {len(takers)} ways before the first block")
            if takers[0].op_type not in RESHAPING:
                return takers[0], value
            value = takers[0].output[0]

    def _take_class_token(self, value: str) -> None:
        source = self._source(value)
        if self.family.cls in self.state:
            return
        token = self.graph.tensor(source)
        # an exporter that knew the batch's size keeps a copy for each image
        if token.ndim != 3 or token.shape[1] != 1 or not bool((token == token[:1]).all()):
            raise self._refuse(f"{source} {list(token.shape)} is no class token")
        self._keep(self.family.cls, token[0, 0] if self.family.flat else token[:1], source)

    def _positions(self, value: str) -> Tensor:
        """Return the positions [1, N, d] that are added as ``value``, before any resizing."""
        maker = self.graph.makers.get(value)
        if maker is not None and maker.op_type == "Concat" and len(maker.input) == 2:
            parts = [self._positions(name) for name in maker.input]
            if parts[0].shape[1] != 1 or parts[0].shape[-1] != parts[1].shape[-1]:
                raise self._refuse("the position of the class token and those of patches disagree")
            return torch.cat(parts, 1)
        source = self._source(value)
        found = self.graph.tensor(source)
        if found.ndim != 3 or len(found) != 1:
            raise self._refuse(f"{source} {list(found.shape)} holds no positions [1, N, d]")
        self.known.add(source)
        return found

    def _source(self, value: str) -> str:
        """Return the constant that a value is made of, without a change of its numbers."""
        source = self._origin(value)
        if source not in self.graph.constants:
            maker = self.graph.makers.get(source)
            what = "an input" if maker is None else f"a {maker.op_type}"
            raise self._refuse(f"the embeddings hang on {what} ({source}), not on a constant")
        return source

    def _origin(self, value: str) -> str:
        """Return what a value is before it is reshaped, repeated or resized."""
        while value not in self.graph.constants:
            maker = self.graph.makers.get(value)
            if maker is None or maker.op_type not in FILLING:
                break
            value = maker.input[0]
        return value

    def _take_pooling(self) -> None:
        """Name what an exporter folded of SigLIP's attention pooling: probe, query, key and value.

        torch projects the probe by the first third of ``in_proj`` and the tokens by the rest, so
        that the two products are told by what they multiply.
        """
        if "head.attention.out_proj.weight" not in self.state:
            return
        (norm,) = self.graph.takers[self.prefix + self.family.norm_bias]
        products = [node for node in self.graph.nodes if node.op_type == "MatMul"]
        origins = [self._origin(node.input[0]) for node in products]
        fed = list(zip(products, origins, strict=True))
        of_probe = [(node, source) for node, source in fed if source in self.graph.constants]
        of_tokens = [node for node, source in fed if source == norm.output[0]]
        if len(of_probe) != 1 or len(of_tokens) != 1:
            raise self._refuse("the pooling's probe and tokens are not projected once each")
        ((query, source),) = of_probe
        if "head.probe" not in self.state:
            probe = self.graph.tensor(source).reshape(-1, self.graph.shape(source)[-1])
            if not bool((probe == probe[:1]).all()):
                raise self._refuse(f"{source} {list(self.graph.shape(source))} is no probe")
            self._keep("head.probe", probe[None, :1], source)
        if "head.attention.in_proj_weight" not in self.state:
            self._take_joint_projection([query, of_tokens[0]])

    def _take_joint_projection(self, products: list[Any]) -> None:
        matrices = [node.input[1] for node in products]
        biases = [name for node in products if (name := self._added_to(node)) is not None]
        if len(biases) != len(products) or not all(m in self.graph.constants for m in matrices):
            raise self._refuse("the pooling's projections are not constants with a bias each")
        joint = torch.cat([self.graph.tensor(name).T for name in matrices])
        self._keep("head.attention.in_proj_weight", joint, matrices[0])
        bias = torch.cat([self.graph.tensor(name) for name in biases])
        self._keep("head.attention.in_proj_bias", bias, biases[0])

    def _refuse_nameless(self, node: Any) -> None:
        for place, name in enumerate(node.input):
            is_scale = node.op_type == "Resize" and place > 0
            if name not in self.graph.constants or name in self.known or is_scale:
                continue
            shape = self.graph.shape(name)
            if self.graph.is_float(name) and torch.Size(shape).numel() > 1:
                if node.op_type == "Add" and not bool(self.graph.tensor(name).any()):
                    continue  # the mask of an attention that nothing masks
                raise self._refuse(
                    f"{name} {list(shape)} stands before the last norm (in {node.op_type}), and "
                    "nothing says what it is"
                )


def _is_product(node: Any) -> bool:
    """Whether a node multiplies by its second input as it is, not transposed."""
    if node.op_type == "Gemm":
        return not any(a.name == "transB" and a.i for a in node.attribute)
    return node.op_type == "MatMul"


def _is_dotted(name: str) -> bool:
    """Whether a name is a path of modules, as parameters have, and none that an exporter made."""
    return "." in name and "::" not in name and "/" not in name
