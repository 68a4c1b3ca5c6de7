"""How codes become sparse in training: the variants, closed by an exhaustive match."""

from dataclasses import dataclass, replace

from vitscope.sae.settings import SaeSettings

WARMUP_SHARE = 0.1
"""Share of the steps over which a penalty rises linearly to its weight: at once, it would kill
features before they have found anything."""


@dataclass(frozen=True)
class BatchTopK:
    """The B·K largest positive pre-activations of the batch; one θ afterwards."""


@dataclass(frozen=True)
class TokenTopK:
    """The K largest positive pre-activations of every token, in training and afterwards."""


@dataclass(frozen=True)
class ReluL1:
    """Every positive pre-activation, and a penalty ``coefficient · Σ code / (B·d)``.

    Attributes:
        coefficient: its weight; on inputs of mean squared norm d.
    """

    coefficient: float


@dataclass(frozen=True)
class JumpRelu:
    """Every pre-activation above its feature's own θ, which is learned.

    The penalty is ``coefficient · (L0 / K − 1)²``, L0 being the batch's mean. θ gets its gradient
    by a straight-through estimate, a rectangle around θ (Rajamanoharan et al. 2024).

    Attributes:
        coefficient: weight of the penalty.
        bandwidth: width of the rectangle.
    """

    coefficient: float
    bandwidth: float


@dataclass(frozen=True)
class Matryoshka:
    """BatchTopK whose prefixes of the dictionary reconstruct alone, too (Bussmann et al. 2025).

    The loss is the mean over prefixes of their reconstruction losses.

    Attributes:
        ends: features of each prefix, ascending; the last is m.
    """

    ends: tuple[int, ...]


Method = BatchTopK | TokenTopK | ReluL1 | JumpRelu | Matryoshka

BATCH_TOPK = BatchTopK()
"""The default, and the paper's."""

LABELS = {
    "batch-topk": "BatchTopK",
    "topk": "TopK",
    "relu": "ReLU + L1",
    "jumprelu": "JumpReLU",
    "matryoshka": "Matryoshka BatchTopK",
}
"""As the literature calls them: how a card names the method."""


def method_of(settings: SaeSettings, n_features: int) -> Method:
    """Return the method that ``settings`` name, for a dictionary of ``n_features``."""
    match settings.method:
        case "batch-topk":
            return BATCH_TOPK
        case "topk":
            return TokenTopK()
        case "relu":
            return ReluL1(settings.l1_coefficient)
        case "jumprelu":
            return JumpRelu(settings.l0_coefficient, settings.jump_bandwidth)
        case "matryoshka":
            ends = {max(1, round(share * n_features)) for share in settings.prefixes}
            return Matryoshka(tuple(sorted(ends)))


def warmed(method: Method, progress: float) -> Method:
    """Return the method as it is after a share ``progress`` of the steps, its penalty rising."""
    if isinstance(method, ReluL1 | JumpRelu) and progress < WARMUP_SHARE:
        return replace(method, coefficient=method.coefficient * progress / WARMUP_SHARE)
    return method


def one_threshold(method: Method) -> bool:
    """Tell whether the finished SAE cuts at one θ, which is fitted after training."""
    return isinstance(method, BatchTopK | Matryoshka)
