"""The data sets that a recipe can name."""

from collections.abc import Mapping

from tdcompress.data.base import DataSettings
from tdcompress.data.cifar import Cifar10Settings, Cifar100Settings
from tdcompress.data.digits import DigitsSettings
from tdcompress.data.imagefolder import ImageFolderSettings
from tdcompress.data.mnist import FashionMnistSettings, MnistSettings
from tdcompress.data.parallel_text import ParallelTextSettings

DATASETS: Mapping[str, type[DataSettings]] = {
    settings.name: settings
    for settings in (
        DigitsSettings,
        MnistSettings,
        FashionMnistSettings,
        Cifar10Settings,
        Cifar100Settings,
        ImageFolderSettings,
        ParallelTextSettings,
    )
}
