"""The stages' names and purposes, in order: all that the command line needs before any work."""

PURPOSES: dict[str, str] = {
    "images": "decode every image once; list what cannot be used",
    "extract": "patch tokens of the training images, as shards",
    "train": "an SAE on those tokens, or the one given",
    "outliers": "token norms and the outlier threshold τ",
    "evaluate": "reconstruction, feature activity, exemplars",
    "score": "Earth Mover's Distance of every exemplar pair",
    "partition": "CDS of every feature; γ; low and high",
    "stability": "would another choice score and split the features alike?",
    "instability": "how far attention moves, outliers against others",
    "awcds": "activation-weighted CDS over the norm spectrum",
    "probe": "linear probes on tokens with and without each group",
    "zeroshot": "predictions by text with and without each group",
    "report": "one self-contained page",
}
