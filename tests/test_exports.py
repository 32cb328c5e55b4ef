"""What is public is listed, and what is listed is there."""

import importlib
import pkgutil
from importlib.metadata import version
from types import ModuleType

import pytest

import vivavoce

PUBLIC = {"__version__"}
"""What the documentation promises of the package itself."""


def packages() -> list[str]:
    found = pkgutil.walk_packages(vivavoce.__path__, "vivavoce.")
    return ["vivavoce", *(info.name for info in found if info.ispkg)]


def listed(module: ModuleType) -> list[str]:
    names: list[str] = getattr(module, "__all__", [])
    return names


def test_package_all_is_the_promised_list() -> None:
    assert set(listed(vivavoce)) == PUBLIC


@pytest.mark.parametrize("name", packages())
def test_package_all_names_exist_once(name: str) -> None:
    module = importlib.import_module(name)
    names = listed(module)
    assert [each for each in names if not hasattr(module, each)] == []
    assert len(names) == len(set(names))


def test_version_is_that_of_the_package() -> None:
    assert vivavoce.__version__ == version("vivavoce")
