"""What may be varied in a set of scenes."""

from typing import Self

from pydantic import Field, model_validator

from vitscope.images.scenes.vocabulary import MAX_OBJECTS, MIN_OBJECTS
from vitscope.settings import Settings


class SceneSettings(Settings):
    """How full, how large and how noisy scenes are."""

    min_objects: int = Field(default=MIN_OBJECTS, ge=MIN_OBJECTS, le=MAX_OBJECTS)
    """Fewest objects that a scene is drawn with."""

    max_objects: int = Field(default=MAX_OBJECTS, ge=MIN_OBJECTS, le=MAX_OBJECTS)
    """Most objects; hidden ones are taken out, so crowded scenes end with fewer."""

    object_scale: float = Field(default=1.0, gt=0, le=1.6)
    """Size of every object, relative to the set's own sizes."""

    noise: float = Field(default=1.0, ge=0)
    """Strength of the camera's noise, relative to the set's own."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError(
                f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}"
            )
        return self
