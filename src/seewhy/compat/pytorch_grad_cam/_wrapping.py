"""What the classes that are made around another one have in common."""

from typing import Any, Self

from seewhy.compat.pytorch_grad_cam.base_cam import Array, BaseCAM


class Wrapping:
    """An object around `base_cam` that is called as `forward`."""

    base_cam: BaseCAM

    def forward(self, *args: Any, **options: Any) -> Array:
        """For a subclass to define."""
        raise NotImplementedError

    def __call__(self, *args: Any, **options: Any) -> Array:
        return self.forward(*args, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.base_cam.__exit__(*error)
