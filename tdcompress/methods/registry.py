"""The methods that a recipe can name."""

from collections.abc import Mapping

from tdcompress.methods.base import MethodSettings
from tdcompress.methods.dropout import DropoutSettings
from tdcompress.methods.l0 import L0Settings
from tdcompress.methods.l1 import L1Settings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.random_prune import RandomPruneSettings
from tdcompress.methods.smallify import SmallifySettings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.variational import VariationalSettings

METHODS: Mapping[str, type[MethodSettings]] = {
    settings.name: settings
    for settings in (
        NoneSettings,
        DropoutSettings,
        TargetedSettings,
        L1Settings,
        L0Settings,
        VariationalSettings,
        SmallifySettings,
        RandomPruneSettings,
    )
}
