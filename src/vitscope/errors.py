"""Errors that a user can cause: each says what was wrong, where, and what to do next."""


class VitscopeError(Exception):
    """Base of every error that the command line prints as one line (exit code 2)."""


class ConfigError(VitscopeError):
    """A setting is unknown, missing, or out of range."""


class ImageSetError(VitscopeError):
    """A folder or list of images is empty, missing, or too damaged to use."""


class BackboneError(VitscopeError):
    """A backbone is unknown, its weights cannot be loaded, or an image does not fit its grid."""


class SaeError(VitscopeError):
    """A sparse autoencoder cannot be loaded, does not fit the backbone, or diverged in training."""


class ArtifactError(VitscopeError):
    """A file of a run directory is damaged, from another version, or was made from other inputs."""


class RunLockedError(VitscopeError):
    """Another process works in the same run directory."""


class TransportError(VitscopeError, ValueError):
    """A map handed to the Earth Mover's Distance has NaN, infinite or negative mass."""


def first_line(error: Exception) -> str:
    """Return what a library says went wrong, short enough for one line of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:160]
