"""The methods that a recipe can name."""

from collections.abc import Mapping

from tdcompress.methods.base import MethodSettings
from tdcompress.methods.l1 import L1Settings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.targeted import TargetedSettings

METHODS: Mapping[str, type[MethodSettings]] = {
    settings.name: settings for settings in (NoneSettings, TargetedSettings, L1Settings)
}
