"""Networks of other packages, by the entry point group ``tdcompress.models``.

An entry point names a callable ``(classes, image, *, key=default, ...) -> nn.Module``. Its further parameters are the keys
that a recipe may give it. Nothing is imported but the one that is named.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar

from torch import nn

from tdcompress.errors import ModelError, one_line
from tdcompress.models.base import ClassifierSettings, Image, require_logits, require_trainable

GROUP = "tdcompress.models"
RESERVED = ("name", "init")  # what a recipe says of any network
_ANY_MORE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
Factory = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class UserSettings(ClassifierSettings):
    """A network that an entry point makes; its fields are the callable's own parameters."""

    factory: ClassVar[Factory]

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        options = {key.name: getattr(self, key.name) for key in fields(self)}
        model: object = type(self).factory(classes, image, **options)
        if not isinstance(model, nn.Module):
            raise ModelError(f"entry point {self.name} of {GROUP} returned {type(model).__name__}, not a torch.nn.Module")
        require_logits(self.name, model, classes, image, device="cpu")
        require_trainable(self.name, model)
        return model


def user_names() -> list[str]:
    """The names that installed packages give to their networks."""
    return sorted(entry_points(group=GROUP).names)


@functools.cache
def user_settings_type(name: str) -> type[UserSettings]:
    """The settings class of one entry point, made from its callable's signature.

    Raises:
        ModelError: an entry point that cannot be imported or called so; a parameter without type and default, or
            with a list as default.
    """
    points = entry_points(group=GROUP, name=name)
    if len(points) != 1:
        raise ModelError(f"{len(points)} installed packages give the name {name!r} to a model ({GROUP}); one is needed")
    (point,) = points
    try:
        factory = point.load()
        parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
    except Exception as error:  # whatever importing another package runs into
        raise ModelError(f"entry point {name} = {point.value} of {GROUP} cannot be loaded: {one_line(error)}") from error
    if len(parameters) < 2:
        raise ModelError(f"entry point {name} = {point.value} of {GROUP} has to take (classes, image)")
    keys = [_key(parameter, name) for parameter in parameters[2:] if parameter.kind not in _ANY_MORE]
    namespace = {"name": name, "factory": staticmethod(factory), "__doc__": f"The keys of {point.value}."}
    return make_dataclass("UserSettings_" + name, keys, bases=(UserSettings,), namespace=namespace, frozen=True, kw_only=True)


def _key(parameter: inspect.Parameter, name: str) -> tuple[str, Any, Any]:
    if parameter.name in RESERVED:
        raise ModelError(f"entry point {name} of {GROUP}: parameter {parameter.name!r} is a key of every [model]; rename it")
    kind, default = parameter.annotation, parameter.default
    if type(default).__hash__ is None:  # dataclasses refuse it: all networks would share the one list
        held = type(default).__name__
        raise ModelError(f"entry point {name} of {GROUP}: {parameter.name!r} has a {held} as default; make it a tuple or None")
    if kind is parameter.empty:
        if default is parameter.empty or default is None:
            raise ModelError(f"entry point {name} of {GROUP}: parameter {parameter.name!r} needs a type or a default")
        kind = type(default)
    return parameter.name, kind, field() if default is parameter.empty else field(default=default)
