"""torchvision is imported in one place, also beside a CPU-only torch, for which its wheel was not built."""

import sys

import pytest

from bntt.data import _torchvision


def test_its_datasets_and_transforms_can_be_used():
    vision = _torchvision.torchvision()
    assert vision.datasets.CIFAR10.__name__ == "CIFAR10"
    assert vision is _torchvision.torchvision(), "the second call finds it imported"


def test_another_failure_is_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(_torchvision, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision.torchvision()


def test_operators_are_declared_only_on_that_error(monkeypatch):
    """Where torchvision imports as it is, nothing is declared."""
    monkeypatch.setattr(_torchvision, "import_module", lambda name: sys)
    before = len(_torchvision._declarations)
    assert _torchvision.torchvision() is sys
    assert len(_torchvision._declarations) == before
