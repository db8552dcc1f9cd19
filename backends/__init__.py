"""What executes graphs, one folder each; and the switches of PyTorch's own backends."""

from types import SimpleNamespace


class Absent(SimpleNamespace):
    """A backend of PyTorch's that is not here; its switches can be set, without effect."""

    @staticmethod
    def is_available() -> bool:
        return False

    @staticmethod
    def is_built() -> bool:
        return False


cudnn = Absent(benchmark=False, deterministic=True, enabled=False, allow_tf32=False)
cuda = Absent(matmul=SimpleNamespace(allow_tf32=False))
mps = Absent()
mkldnn = Absent(enabled=False)
