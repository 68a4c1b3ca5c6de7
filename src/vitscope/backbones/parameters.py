"""How large a backbone is."""

from torch import nn

from vitscope.backbones.backbone import Backbone


def count_parameters(backbone: Backbone) -> int | None:
    """Return the number of parameters of the backbone's vision model, all blocks and its pooling.

    Counted where the adapter keeps a torch module as ``model``, or is one itself; None elsewhere,
    as for ``planted``, which has no weights. Text towers are no part of a backbone.
    """
    model = getattr(backbone, "model", backbone)
    if not isinstance(model, nn.Module):
        return None
    return sum(parameter.numel() for parameter in model.parameters())
